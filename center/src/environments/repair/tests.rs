use super::*;
use crate::environments::testing;

#[test]
fn a_long_name_is_cut_to_what_a_host_name_holds() {
    assert_eq!(repair_name("web1"), "web1-repair");
    let long = repair_name(&format!("{}-{}", "a".repeat(55), "b".repeat(7)));
    assert_eq!(long, format!("{}-repair", "a".repeat(55)));
    assert!(lodge_model::node::check_name(&repair_name(&"a".repeat(63))).is_ok());
}

#[test]
fn a_repair_may_run_where_the_environment_may_not() {
    let mut web = testing::environment("web1", 1);
    web.spec.node = Some("node1".into());
    assert_eq!(web.only_on(), Some("node1"));
    web.repair = Some(testing::repair(&web));
    assert_eq!(web.only_on(), None);
}
