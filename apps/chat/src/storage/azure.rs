//! Storage accounts of Azure, as connection strings name them.

use std::error::Error;
use std::fmt;

use http::{HeaderValue, Method, StatusCode, header};
use object_store::azure::{
    AzureAccessKey, AzureAuthorizer, AzureConfigKey, AzureCredential, MicrosoftAzure,
    MicrosoftAzureBuilder, split_sas,
};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::{ClientOptions, RetryConfig};
use url::Url;

/// A storage account and how to get in. `Debug` shows no secret.
#[derive(Clone)]
pub(super) struct AzureAccount {
    name: String,
    endpoint: Url,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    Key(String),
    /// A shared access signature: the query of a URL.
    Signature(String),
}

impl AzureAccount {
    /// Returns whether a text is meant as a connection string.
    pub(super) fn may_be(text: &str) -> bool {
        let known =
            ["AccountName", "AccountKey", "BlobEndpoint", "SharedAccessSignature", EMULATOR];
        parts(text).any(|(key, _)| known.iter().any(|name| name.eq_ignore_ascii_case(key)))
    }

    /// Reads a connection string ("Configure Azure Storage connection strings" in Azure's documentation). Keys of other services than
    /// Blob are passed over.
    pub(super) fn parse(text: &str) -> Result<Self, AzureAccountError> {
        let value = |name: &str| {
            let mut named = parts(text).filter(|(key, _)| key.eq_ignore_ascii_case(name));
            named.next().map(|(_, value)| value).filter(|value| !value.is_empty())
        };
        if value(EMULATOR).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            let (name, secret) =
                (EMULATOR_ACCOUNT.to_owned(), Secret::Key(EMULATOR_KEY.to_owned()));
            let endpoint = Url::parse(EMULATOR_ENDPOINT).expect("a URL that is written down here");
            return Ok(Self { name, endpoint, secret });
        }
        let endpoint = match (value("BlobEndpoint"), value("AccountName")) {
            (Some(endpoint), _) => endpoint.to_owned(),
            (None, Some(name)) => {
                let protocol = value("DefaultEndpointsProtocol").unwrap_or("https");
                let suffix = value("EndpointSuffix").unwrap_or("core.windows.net");
                format!("{protocol}://{name}.blob.{suffix}")
            }
            (None, None) => return Err(AzureAccountError::Account),
        };
        let endpoint = Url::parse(&endpoint).map_err(|_| AzureAccountError::Endpoint)?;
        if !["http", "https"].contains(&endpoint.scheme()) {
            return Err(AzureAccountError::Endpoint);
        }
        let of_host = || endpoint.domain().and_then(|host| host.split('.').next());
        let name = value("AccountName").or_else(of_host).ok_or(AzureAccountError::Account)?;
        let secret = match (value("AccountKey"), value("SharedAccessSignature")) {
            (Some(key), _) => Secret::Key(key.to_owned()),
            (None, Some(signature)) => Secret::Signature(signature.to_owned()),
            (None, None) => return Err(AzureAccountError::Secret),
        };
        let account = Self { name: name.to_owned(), endpoint, secret };
        account.credential()?;
        Ok(account)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn open(
        &self,
        container: &str,
        retry: RetryConfig,
    ) -> object_store::Result<MicrosoftAzure> {
        let builder = MicrosoftAzureBuilder::new()
            .with_account(&self.name)
            .with_endpoint(self.endpoint.as_str().trim_end_matches('/').to_owned())
            .with_allow_http(self.endpoint.scheme() == "http")
            .with_container_name(container)
            .with_retry(retry);
        match &self.secret {
            Secret::Key(key) => builder.with_access_key(key),
            Secret::Signature(signature) => {
                builder.with_config(AzureConfigKey::SasKey, signature.as_str())
            }
        }
        .build()
    }

    /// Creates a container. That it exists already is no error.
    pub(super) async fn create(&self, container: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        let endpoint = self.endpoint.as_str().trim_end_matches('/');
        // Operation "Create Container" of the Blob service's REST API.
        let mut request: HttpRequest = http::Request::builder()
            .method(Method::PUT)
            .uri(format!("{endpoint}/{container}?restype=container"))
            .header(header::CONTENT_LENGTH, HeaderValue::from_static("0"))
            .body(HttpRequestBody::empty())?;
        let credential = self.credential()?;
        AzureAuthorizer::new(&credential, &self.name).try_authorize(&mut request)?;
        let options = ClientOptions::default().with_allow_http(self.endpoint.scheme() == "http");
        let client = ReqwestConnector::default().connect(&options)?;
        let status = client.execute(request).await?.status();
        if status == StatusCode::CREATED || status == StatusCode::CONFLICT {
            Ok(())
        } else {
            Err(format!("the container is absent, and creating it was answered with {status}")
                .into())
        }
    }

    fn credential(&self) -> Result<AzureCredential, AzureAccountError> {
        match &self.secret {
            Secret::Key(key) => AzureAccessKey::try_new(key)
                .map(AzureCredential::AccessKey)
                .map_err(|_| AzureAccountError::Key),
            Secret::Signature(signature) => split_sas(signature)
                .map(AzureCredential::SASToken)
                .map_err(|_| AzureAccountError::Signature),
        }
    }
}

impl fmt::Debug for AzureAccount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, endpoint, secret: _ } = self;
        formatter
            .debug_struct("AzureAccount")
            .field("name", name)
            .field("endpoint", &endpoint.as_str())
            .finish_non_exhaustive()
    }
}

fn parts(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|part| part.trim().split_once('='))
}

/// Why a storage connection string cannot be used. The string itself is never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AzureAccountError {
    /// Nothing says which account.
    #[error("it names no account: AccountName or BlobEndpoint is needed")]
    Account,
    /// The address of the Blob service is broken.
    #[error("its Blob endpoint is no http or https URL")]
    Endpoint,
    /// Nothing to get in with.
    #[error("it has neither AccountKey nor SharedAccessSignature")]
    Secret,
    /// The key is broken.
    #[error("its AccountKey is not Base64")]
    Key,
    /// The signature is broken.
    #[error("its SharedAccessSignature is no query of a URL")]
    Signature,
}

/// The setting that means the emulator on this machine.
const EMULATOR: &str = "UseDevelopmentStorage";

/// Account, key and address of the emulator are the same everywhere ("Use the Azurite emulator" in Azure's documentation).
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const EMULATOR_ENDPOINT: &str = "http://127.0.0.1:10000/devstoreaccount1";

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (String, String) {
        let account = AzureAccount::parse(text).unwrap();
        (account.name, account.endpoint.to_string())
    }

    #[test]
    fn connection_strings_name_an_account_and_its_blob_service() {
        let is = |name: &str, endpoint: &str| (name.to_owned(), endpoint.to_owned());
        assert_eq!(
            of(
                "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn"
            ),
            is("acme", "https://acme.blob.core.chinacloudapi.cn/")
        );
        assert_eq!(
            of("AccountName=acme; accountkey=a2V5eA==;"),
            is("acme", "https://acme.blob.core.windows.net/")
        );
        assert_eq!(
            of(
                "BlobEndpoint=http://127.0.0.1:1/acme;AccountName=acme;AccountKey=a2V5;QueueEndpoint=?"
            ),
            is("acme", "http://127.0.0.1:1/acme")
        );
        assert_eq!(
            of(
                "BlobEndpoint=https://acme.blob.core.windows.net;SharedAccessSignature=sv=2024&sig=x%3D"
            ),
            is("acme", "https://acme.blob.core.windows.net/")
        );
        assert_eq!(of("UseDevelopmentStorage=true;"), is(EMULATOR_ACCOUNT, EMULATOR_ENDPOINT));
    }

    #[test]
    fn faults_are_named() {
        for (text, fault) in [
            ("", AzureAccountError::Account),
            ("UseDevelopmentStorage=false", AzureAccountError::Account),
            ("AccountKey=a2V5", AzureAccountError::Account),
            ("BlobEndpoint=http://127.0.0.1/;AccountKey=a2V5", AzureAccountError::Account),
            ("AccountName=acme", AzureAccountError::Secret),
            ("AccountName=acme;AccountKey=***", AzureAccountError::Key),
            ("AccountName=acme;AccountKey=a2V5;BlobEndpoint=ftp://x", AzureAccountError::Endpoint),
            ("AccountName=acme;SharedAccessSignature=nothing", AzureAccountError::Signature),
        ] {
            assert_eq!(AzureAccount::parse(text).unwrap_err(), fault, "{text}");
        }
    }
}
