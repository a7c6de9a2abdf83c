//! A policy as it stands in the file: every member, its default, and nothing checked but types.
//!
//! Unknown members are refused here; what members must say together is for `load`.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) schema: u32,
    #[serde(default)]
    pub(super) sbom: Sbom,
    #[serde(default)]
    pub(super) vulns: Vulns,
    #[serde(default)]
    pub(super) runtime: Runtime,
    #[serde(default)]
    pub(super) rego: Rego,
    #[serde(default)]
    pub(super) break_glass: BreakGlass,
    pub(super) artifact: Artifact,
    pub(super) threshold: Threshold,
    #[serde(default, rename = "rebuilder")]
    pub(super) rebuilders: Vec<Rebuilder>,
    #[serde(default, rename = "verifier")]
    pub(super) verifiers: Vec<Verifier>,
    pub(super) provenance: Provenance,
    #[serde(default)]
    pub(super) inputs: Inputs,
    #[serde(default)]
    pub(super) log: Log,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sbom {
    pub(super) required: bool,
    pub(super) profile: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Vulns {
    pub(super) max_cvss: f64,
    pub(super) vex_authors: Vec<String>,
    pub(super) feed_max_age_days: u32,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Runtime {
    pub(super) required: bool,
    pub(super) deny_events: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rego {
    pub(super) modules: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BreakGlass {
    pub(super) allowed: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Artifact {
    #[serde(rename = "match")]
    pub(super) pattern: String,
    pub(super) resource_uri: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Threshold {
    pub(super) identical: u32,
    #[serde(default)]
    pub(super) equivalent_counts: bool,
    #[serde(default = "deny")]
    pub(super) on_dissent: String,
    #[serde(default)]
    pub(super) allow_flaky: bool,
    #[serde(default)]
    pub(super) disregard: Vec<String>,
    #[serde(default)]
    pub(super) min_independence: Independence,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Independence {
    pub(super) operators: u32,
    pub(super) tool_versions: u32,
    pub(super) architectures_or_os: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rebuilder {
    pub(super) id: String,
    pub(super) operator: String,
    #[serde(default)]
    pub(super) keys: Vec<String>,
    #[serde(default)]
    pub(super) svid_bundle: String,
    #[serde(default)]
    pub(super) max_slsa_level: u8,
    pub(super) valid: Vec<String>,
    #[serde(default)]
    pub(super) revoked_after: String,
    #[serde(default)]
    pub(super) accepts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Verifier {
    pub(super) id: String,
    pub(super) keys: Vec<String>,
    #[serde(default = "no_source_level")]
    pub(super) max_level: String,
    pub(super) resource_uri: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provenance {
    #[serde(default = "our_build_type")]
    pub(super) build_types: Vec<String>,
    pub(super) external_parameters: BTreeMap<String, String>,
    #[serde(default = "yes")]
    pub(super) deny_unknown_parameters: bool,
    #[serde(default)]
    pub(super) min_level: u8,
    #[serde(default)]
    pub(super) max_age_days: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Inputs {
    pub(super) require_digest: bool,
    pub(super) allow_uri: Vec<String>,
    pub(super) deny_digests: Vec<String>,
    pub(super) licences: Licences,
    pub(super) source_vsa_min: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Licences {
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
    pub(super) unknown: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) tlog_policy: String,
    pub(super) require_inclusion: bool,
    pub(super) checkpoint_max_age_hours: u32,
    pub(super) pinned_checkpoint: String,
}

impl Default for Sbom {
    fn default() -> Self {
        Self { required: false, profile: "ntia".into() }
    }
}

impl Default for Vulns {
    fn default() -> Self {
        Self { max_cvss: 10.0, vex_authors: Vec::new(), feed_max_age_days: 7 }
    }
}

impl Default for Independence {
    fn default() -> Self {
        Self { operators: 2, tool_versions: 1, architectures_or_os: 0 }
    }
}

impl Default for Inputs {
    fn default() -> Self {
        Self {
            require_digest: true,
            allow_uri: vec!["*".into()],
            deny_digests: Vec::new(),
            licences: Licences::default(),
            source_vsa_min: String::new(),
        }
    }
}

impl Default for Licences {
    fn default() -> Self {
        Self { allow: Vec::new(), deny: Vec::new(), unknown: deny() }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            tlog_policy: "log.policy".into(),
            require_inclusion: true,
            checkpoint_max_age_hours: 0,
            pinned_checkpoint: String::new(),
        }
    }
}

fn deny() -> String {
    "deny".into()
}

fn yes() -> bool {
    true
}

fn no_source_level() -> String {
    "SLSA_SOURCE_LEVEL_0".into()
}

fn our_build_type() -> Vec<String> {
    vec![super::BUILD_TYPE.into()]
}
