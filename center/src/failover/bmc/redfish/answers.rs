//! What a BMC answers, as far as it is read (schemas ServiceRoot, ComputerSystemCollection, ComputerSystem of DMTF DSP8010).

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Link {
    #[serde(rename = "@odata.id")]
    pub(super) path: String,
}

#[derive(Deserialize)]
pub(super) struct Root {
    #[serde(rename = "Systems")]
    pub(super) systems: Option<Link>,
}

#[derive(Deserialize)]
pub(super) struct Collection {
    #[serde(rename = "Members", default)]
    pub(super) members: Vec<Link>,
}

#[derive(Deserialize)]
pub(super) struct ComputerSystem {
    #[serde(rename = "Id")]
    pub(super) id: Option<String>,
    #[serde(rename = "PowerState")]
    pub(super) power: Option<String>,
    #[serde(rename = "UUID")]
    pub(super) uuid: Option<String>,
    #[serde(rename = "Manufacturer")]
    pub(super) maker: Option<String>,
    #[serde(rename = "Model")]
    pub(super) model: Option<String>,
    #[serde(rename = "Actions")]
    pub(super) actions: Option<Actions>,
}

#[derive(Deserialize)]
pub(super) struct Actions {
    #[serde(rename = "#ComputerSystem.Reset")]
    pub(super) reset: Option<ResetAction>,
}

#[derive(Deserialize)]
pub(super) struct ResetAction {
    pub(super) target: String,
    #[serde(rename = "ResetType@Redfish.AllowableValues", default)]
    pub(super) allowed: Vec<String>,
}
