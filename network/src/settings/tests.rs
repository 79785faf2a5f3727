use super::*;
use crate::tests::spaces::{Lab, Space};

#[test]
fn settings_are_taken_along_and_what_is_not_there_is_named() {
    let Some(_lab) = Lab::bridged() else { return };
    let (one, other) = (Space::new(), Space::new());
    set_setting(one.tid, "ipv4/tcp_keepalive_time", "77").unwrap();
    set_setting(one.tid, WINDOW_SCALING, "0").unwrap();
    let mut found = settings(one.tid).unwrap();
    assert_eq!(found.get("ipv4/tcp_keepalive_time").map(String::as_str), Some("77"));
    assert!(found.contains_key(PING_GROUPS) && found.keys().all(|name| name.matches('/').count() == 1));
    assert_ne!(settings(other.tid).unwrap(), found);
    found.insert("ipv4/of_another_kernel".into(), "1".into());
    assert_eq!(set_settings(other.tid, &found).unwrap(), ["ipv4/of_another_kernel"]);
    found.remove("ipv4/of_another_kernel");
    assert_eq!(settings(other.tid).unwrap(), found);
    assert!(set_setting(u32::MAX, WINDOW_SCALING, "1").is_err());
}
