//! What the shards decide by, in layers: what the configuration says, and above it what was set at run time.

use std::collections::BTreeMap;
use std::sync::Arc;

use hookwire_hub::{RecoverySettings, Settings};
use hookwire_proto::handler::{HubSettings, HubsSettings};
use hookwire_proto::name::HubName;
use hookwire_proto::reconnection::ReconnectionKey;
use hookwire_proto::template::{TemplateError, Templates, TemplatesDocument};

use crate::config::{Config, Limits};
use crate::shards::random;

/// The layers. Whoever changes one holds them until every shard decides by the result.
#[derive(Debug)]
pub(crate) struct Layers {
    configured: Configured,
    stored_templates: Option<Parsed>,
    /// Hubs whose settings were set at run time.
    stored_hubs: BTreeMap<HubName, Arc<HubSettings>>,
    reconnection_key: ReconnectionKey,
}

/// Where the settings of a hub come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HubSource {
    /// They were set at run time.
    Stored,
    /// The configuration lists the hub.
    File,
    /// The configuration says it of all hubs that it does not list.
    Defaults,
}

/// The lowest layer.
#[derive(Debug)]
pub(crate) struct Configured {
    templates: Parsed,
    hubs: HubsSettings,
    recovery: RecoverySettings,
}

/// Templates as they were given, and as they are used.
#[derive(Debug)]
struct Parsed {
    document: TemplatesDocument,
    templates: Templates,
}

impl Configured {
    /// Returns the layer that a configuration makes.
    ///
    /// # Errors
    /// All faults of the templates.
    pub(crate) fn of(config: &Config) -> Result<Self, Vec<TemplateError>> {
        Ok(Self {
            templates: Parsed::of(config.templates.clone())?,
            hubs: config.hubs.clone(),
            recovery: recovery(&config.limits),
        })
    }
}

impl Parsed {
    fn of(document: TemplatesDocument) -> Result<Self, Vec<TemplateError>> {
        let templates = Templates::parse(&document)?;
        Ok(Self { document, templates })
    }
}

impl Layers {
    /// Returns the layers with a new key for reconnection tokens.
    ///
    /// # Errors
    /// All faults of the stored templates: another version wrote them.
    pub(crate) fn new(
        configured: Configured,
        stored_templates: Option<TemplatesDocument>,
        stored_hubs: BTreeMap<HubName, Arc<HubSettings>>,
    ) -> Result<Self, Vec<TemplateError>> {
        let stored_templates = stored_templates.map(Parsed::of).transpose()?;
        let reconnection_key = ReconnectionKey::new(random());
        Ok(Self { configured, stored_templates, stored_hubs, reconnection_key })
    }

    /// Returns the settings of a hub, and where they come from.
    pub(crate) fn hub(&self, hub: &HubName) -> (HubSource, &Arc<HubSettings>) {
        let configured = &self.configured.hubs;
        if let Some(settings) = self.stored_hubs.get(hub) {
            (HubSource::Stored, settings)
        } else if let Some(settings) = configured.hubs.get(hub) {
            (HubSource::File, settings)
        } else {
            (HubSource::Defaults, &configured.defaults)
        }
    }

    /// Returns how many hubs have settings that were set at run time.
    pub(crate) fn stored_hubs(&self) -> usize {
        self.stored_hubs.len()
    }

    /// Puts the settings of a hub above those of the configuration, or takes them away.
    pub(crate) fn set_hub(&mut self, hub: HubName, settings: Option<Arc<HubSettings>>) {
        match settings {
            Some(settings) => self.stored_hubs.insert(hub, settings),
            None => self.stored_hubs.remove(&hub),
        };
    }

    /// Replaces what the configuration says.
    pub(crate) fn set_configured(&mut self, configured: Configured) {
        self.configured = configured;
    }

    /// Puts templates above those of the configuration.
    pub(crate) fn set_templates(&mut self, document: TemplatesDocument, templates: Templates) {
        self.stored_templates = Some(Parsed { document, templates });
    }

    /// Whether templates were set at run time.
    pub(crate) const fn has_stored_templates(&self) -> bool {
        self.stored_templates.is_some()
    }

    /// Returns the templates in force, as they were given.
    pub(crate) fn templates(&self) -> &TemplatesDocument {
        &self.stored_templates.as_ref().unwrap_or(&self.configured.templates).document
    }

    /// Returns what the shards decide by.
    pub(crate) fn settings(&self) -> Settings {
        let templates = self.stored_templates.as_ref().unwrap_or(&self.configured.templates);
        let mut hubs = self.configured.hubs.clone();
        let stored = self.stored_hubs.iter();
        hubs.hubs.extend(stored.map(|(hub, settings)| {
            // Compression can be configured, but not stored.
            let compression = self.configured.hubs.hub(hub).compression;
            let settings = HubSettings { compression, ..HubSettings::clone(settings) };
            (hub.clone(), Arc::new(settings))
        }));
        Settings {
            templates: templates.templates.clone(),
            hubs,
            recovery: self.configured.recovery.clone(),
            reconnection_key: self.reconnection_key.clone(),
        }
    }
}

fn recovery(limits: &Limits) -> RecoverySettings {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    RecoverySettings {
        retention_ms: millis(limits.recovery_time),
        retention_without_status_ms: millis(limits.recovery_time_without_status),
        messages_max: limits.recovery_messages_max,
        bytes_max: limits.recovery_bytes_max,
    }
}
