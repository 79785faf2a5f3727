use super::*;

#[test]
fn an_uplink_survives_its_file_and_unknown_keys_do_not() {
    let uplink = Uplink {
        interface: "eth0".into(),
        mac: "52:54:00:00:00:01".into(),
        address: "10.0.0.5/24".into(),
        gateway: Some("10.0.0.1".parse().unwrap()),
        dns: vec!["10.0.0.1".parse().unwrap()],
        dhcp_words: None,
    };
    assert_eq!(uplink.ip(), "10.0.0.5");
    let text = serde_json::to_string(&uplink).unwrap();
    assert_eq!(serde_json::from_str::<Uplink>(&text).unwrap(), uplink);
    assert!(serde_json::from_str::<Uplink>(&text.replace("gateway", "gatewya")).is_err());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etc/resolv.conf");
    write_resolv_conf(&uplink, &path).unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "nameserver 10.0.0.1\n");
}
