//! Identity providers whose tokens the REST API accepts beside those of the access keys.

use std::collections::BTreeMap;

use url::Url;

use super::ConfigFault;
use super::reader::Section;

/// Most identity providers.
const PROVIDERS_MAX: usize = 16;

/// The claim that holds a token's roles unless another is named.
const ROLES_CLAIM: &str = "roles";

/// One identity provider (`OpenID` Connect).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// The `iss` of its tokens, letter by letter.
    pub issuer: String,
    /// Where its signing keys are (RFC 7517).
    pub jwks_url: Url,
    /// The `aud` of tokens that are meant for this service.
    pub audience: String,
    /// The claim that holds a token's roles.
    pub roles_claim: String,
    /// What the holder of a role may do. A token without any of them may do nothing.
    pub roles: BTreeMap<String, RestAccess>,
}

/// What the holder of a token may do by the REST API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RestAccess {
    /// Questions only.
    Read,
    /// Everything.
    Full,
}

impl OidcConfig {
    /// Reads `[[oidc]]`.
    pub(super) fn read_all(root: &mut Section, faults: &mut Vec<ConfigFault>) -> Vec<Self> {
        let sections = root.sections("oidc", faults);
        if PROVIDERS_MAX < sections.len() {
            let fault = format!("only {PROVIDERS_MAX} identity providers are allowed");
            root.fault("oidc", &fault, faults);
        }
        let mut providers: Vec<Self> = Vec::with_capacity(sections.len());
        for (at, section) in sections.into_iter().enumerate() {
            let Some(provider) = Self::read(section, faults) else { continue };
            if providers
                .iter()
                .any(|other| other.issuer == provider.issuer && other.audience == provider.audience)
            {
                let fault = "another entry has this issuer and audience";
                root.fault(&format!("oidc[{at}].issuer"), fault, faults);
            }
            providers.push(provider);
        }
        providers
    }

    /// Reads one provider; `None` when a required key is missing or faulty, which is then among the faults.
    fn read(mut section: Section, faults: &mut Vec<ConfigFault>) -> Option<Self> {
        let issuer = section.required_text("issuer", faults);
        let issuer = issuer.and_then(|text| {
            section.checked("issuer", text, faults, |issuer| web_url(&issuer).map(|_| issuer))
        });
        let jwks_url = section.required_text("jwks_url", faults);
        let jwks_url = jwks_url
            .and_then(|text| section.checked("jwks_url", text, faults, |url| web_url(&url)));
        let audience = section.required_text("audience", faults);
        let audience = audience.and_then(|text| section.checked("audience", text, faults, named));
        let roles_claim =
            section.text("roles_claim", faults).unwrap_or_else(|| ROLES_CLAIM.to_owned());
        let roles_claim = section.checked("roles_claim", roles_claim, faults, named);
        let before = faults.len();
        let roles = section.text_table("roles", faults).unwrap_or_default();
        if roles.is_empty() && before == faults.len() {
            section.fault("roles", "at least one role must be named, or no token helps", faults);
        }
        let roles = roles.into_iter().filter_map(|(role, access)| {
            let access = match access.as_str() {
                "full" => RestAccess::Full,
                "read" => RestAccess::Read,
                _ => {
                    let key = format!("roles.{role}");
                    section.fault(&key, "must be \"full\" or \"read\"", faults);
                    return None;
                }
            };
            Some((role, access))
        });
        let roles = roles.collect();
        section.finish(faults);
        Some(Self {
            issuer: issuer?,
            jwks_url: jwks_url?,
            audience: audience?,
            roles_claim: roles_claim?,
            roles,
        })
    }
}

/// Returns the URL if it is one of the web, without password.
pub(super) fn web_url(text: &str) -> Result<Url, String> {
    // The text is not repeated: it could hold a password.
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("the scheme must be http or https, not {:?}", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL may not carry a user name or password".to_owned());
    }
    Ok(url)
}

/// Returns the text if it is not blank.
fn named(text: String) -> Result<String, String> {
    if text.trim().is_empty() { Err("may not be blank".to_owned()) } else { Ok(text) }
}
