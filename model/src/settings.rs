//! What an operator can set for the whole cluster: `GET,PATCH /settings`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::drain::Cause;
use crate::live::MoveBy;
use crate::timing::PATIENCE;

/// What can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Seconds a node that an operator or a program switches off waits for its environments.
    pub operator_deadline: u32,
    /// The same for the power button and Ctrl-Alt-Del.
    pub button_deadline: u32,
    /// The same for a UPS.
    pub ups_deadline: u32,
    /// Moves that leave one node at a time.
    pub moves_per_source: u32,
    /// Moves that come to one node at a time.
    pub moves_per_target: u32,
    /// Moves at a time in the whole cluster.
    pub moves_per_cluster: u32,
    /// How environments move of which nothing else is said: `auto`, `live` or `restart`.
    pub move_by: MoveBy,
    /// Factor of all times after which silence is taken for death (`timing::Timing`): more than 1 for machines or networks that stall.
    pub patience: u32,
    /// Refuse what would leave no room for the environments of a node that dies; whoever asks may insist.
    pub spare: bool,
    /// Seconds after the last sign of life of a node after which its lease and its watchdog are taken for a proof that it writes no more,
    /// where neither the share node nor a BMC has one; 0 for never. Longer than any of them may go on (`guard`).
    pub lease_wait: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            operator_deadline: 900,
            button_deadline: 300,
            ups_deadline: 60,
            moves_per_source: 4,
            moves_per_target: 4,
            moves_per_cluster: 16,
            move_by: MoveBy::Auto,
            patience: 1,
            spare: true,
            lease_wait: 0,
        }
    }
}

/// Shortest and longest deadline, in seconds: the clean stop at its end takes some itself, and init waits for no longer than the longest.
pub const DEADLINES: std::ops::RangeInclusive<u32> = 10..=3600;
/// Shortest and longest wait for lease and watchdog, in seconds; how short it may be in fact depends on what the nodes attest.
pub const LEASE_WAITS: std::ops::RangeInclusive<u32> = 30..=3600;
/// Least and greatest number of moves at a time.
pub const MOVES: std::ops::RangeInclusive<u32> = 1..=64;

impl Settings {
    /// Seconds for a cause.
    pub fn deadline(&self, cause: Cause) -> u32 {
        match cause {
            Cause::Operator | Cause::Request => self.operator_deadline,
            Cause::Button => self.button_deadline,
            Cause::Ups => self.ups_deadline,
        }
    }

    /// With these changes, or why they cannot be, naming the field.
    pub fn with(&self, change: &SettingsChange) -> Result<Self, String> {
        let changed = Self {
            operator_deadline: change.operator_deadline.unwrap_or(self.operator_deadline),
            button_deadline: change.button_deadline.unwrap_or(self.button_deadline),
            ups_deadline: change.ups_deadline.unwrap_or(self.ups_deadline),
            moves_per_source: change.moves_per_source.unwrap_or(self.moves_per_source),
            moves_per_target: change.moves_per_target.unwrap_or(self.moves_per_target),
            moves_per_cluster: change.moves_per_cluster.unwrap_or(self.moves_per_cluster),
            move_by: change.move_by.unwrap_or(self.move_by),
            patience: change.patience.unwrap_or(self.patience),
            spare: change.spare.unwrap_or(self.spare),
            lease_wait: change.lease_wait.unwrap_or(self.lease_wait),
        };
        changed.check().map(|()| changed)
    }

    fn check(&self) -> Result<(), String> {
        let deadlines = [
            ("operator_deadline", self.operator_deadline),
            ("button_deadline", self.button_deadline),
            ("ups_deadline", self.ups_deadline),
        ];
        let moves = [
            ("moves_per_source", self.moves_per_source),
            ("moves_per_target", self.moves_per_target),
            ("moves_per_cluster", self.moves_per_cluster),
        ];
        if let Some((name, value)) = deadlines.into_iter().find(|(_, value)| !DEADLINES.contains(value)) {
            return Err(format!("{name}: {value} s; from {} s to {} s is possible", DEADLINES.start(), DEADLINES.end()));
        }
        if self.move_by == MoveBy::Cluster {
            return Err("move_by: these are the cluster's settings: auto, live or restart".to_owned());
        }
        if !PATIENCE.contains(&self.patience) {
            return Err(format!("patience: {}; from {} to {} is possible", self.patience, PATIENCE.start(), PATIENCE.end()));
        }
        if self.lease_wait != 0 && !LEASE_WAITS.contains(&self.lease_wait) {
            let (least, most) = (LEASE_WAITS.start(), LEASE_WAITS.end());
            return Err(format!("lease_wait: {} s; from {least} s to {most} s is possible, or 0 for never", self.lease_wait));
        }
        match moves.into_iter().find(|(_, value)| !MOVES.contains(value)) {
            Some((name, value)) => Err(format!("{name}: {value}; from {} to {} is possible", MOVES.start(), MOVES.end())),
            None => Ok(()),
        }
    }
}

/// Body of `PATCH /settings`; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SettingsChange {
    /// See `Settings`.
    pub operator_deadline: Option<u32>,
    /// See `Settings`.
    pub button_deadline: Option<u32>,
    /// See `Settings`.
    pub ups_deadline: Option<u32>,
    /// See `Settings`.
    pub moves_per_source: Option<u32>,
    /// See `Settings`.
    pub moves_per_target: Option<u32>,
    /// See `Settings`.
    pub moves_per_cluster: Option<u32>,
    /// See `Settings`.
    pub move_by: Option<MoveBy>,
    /// See `Settings`.
    pub patience: Option<u32>,
    /// See `Settings`.
    pub spare: Option<bool>,
    /// See `Settings`.
    pub lease_wait: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_cannot_be_names_itself_and_changes_nothing() {
        let settings = Settings::default();
        let change = SettingsChange { ups_deadline: Some(5), ..SettingsChange::default() };
        assert!(settings.with(&change).unwrap_err().starts_with("ups_deadline: 5 s"));
        let change = SettingsChange { move_by: Some(MoveBy::Cluster), ..SettingsChange::default() };
        assert!(settings.with(&change).unwrap_err().starts_with("move_by: "));
        let change = SettingsChange { moves_per_target: Some(0), ..SettingsChange::default() };
        assert!(settings.with(&change).unwrap_err().starts_with("moves_per_target: 0"));
        let change = SettingsChange { patience: Some(0), ..SettingsChange::default() };
        assert!(settings.with(&change).unwrap_err().starts_with("patience: 0"));
        let change = SettingsChange { lease_wait: Some(5), ..SettingsChange::default() };
        assert!(settings.with(&change).unwrap_err().starts_with("lease_wait: 5 s"));
        let change = SettingsChange { button_deadline: Some(20), ..SettingsChange::default() };
        assert_eq!(settings.with(&change).unwrap(), Settings { button_deadline: 20, ..settings.clone() });
        assert_eq!((settings.deadline(Cause::Request), settings.deadline(Cause::Ups)), (900, 60));
    }
}
