use super::*;
use crate::view::samples;
use lodge_model::layout::{GIB, MIB};

const FILE: &str = r#"
[defaults]
template = "tiny"
memory = "512M"
ssh-key-files = ["~/id.pub"]

[[environment]]
name = "web1"
disk = "10G"
cpus = 0.5

[[environment]]
name = "web2"
disk = 1073741824
memory = "1G"
anti-affinity = "web"
"#;

fn keys(file: &str) -> Result<Vec<String>> {
    anyhow::ensure!(file == "~/id.pub", "reading {file}");
    Ok(vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA x".into()])
}

fn specs() -> Vec<Spec> {
    read(FILE, &keys).unwrap()
}

fn view(spec: &Spec) -> EnvironmentView {
    EnvironmentView { spec: spec.clone(), ..samples::environment(&spec.name) }
}

#[test]
fn defaults_count_where_nothing_else_is_said() {
    let specs = specs();
    let told: Vec<_> = specs.iter().map(|spec| (spec.disk, spec.memory, spec.cpu_millis, spec.template.as_str())).collect();
    assert_eq!(told, [(10 * GIB, 512 * MIB, 500, "tiny"), (GIB, GIB, 1000, "tiny")]);
    assert!(specs.iter().all(|spec| spec.ssh_keys.len() == 1));
}

#[test]
fn a_wrong_file_is_told_with_the_place() {
    let wrong = |text: &str| format!("{:#}", read(text, &keys).unwrap_err());
    assert!(wrong("").contains("no [[environment]]"));
    assert!(wrong("[[environment]]\nname='a'\ncolour='red'").contains("colour"));
    assert!(wrong("[[environment]]\nname='a'\ndisk='10X'").contains("10X"));
    assert!(wrong("[[environment]]\nname='a'\ncpus=-1").contains("processors"));
    assert!(wrong("[[environment]]\nname='a'").contains("[[environment]] a: it has no template"));
    assert!(wrong("[defaults]\nname='a'\n[[environment]]\nname='b'").contains("[defaults]"));
    assert!(wrong(&format!("{FILE}\n[[environment]]\nname='web1'\ndisk='1G'")).contains("twice"));
    assert!(wrong(&FILE.replace("web2", "Web 2")).contains("name:"));
    assert!(wrong(&FILE.replace("id.pub", "other.pub")).contains("reading ~/other.pub"));
}

#[test]
fn what_is_there_as_asked_for_is_kept_and_the_rest_is_made_or_changed() {
    let specs = specs();
    assert!(plan(&specs, &[]).unwrap().iter().all(|step| matches!(step, Step::Create { .. })));
    let found: Vec<_> = specs.iter().map(view).collect();
    assert!(plan(&specs, &found).unwrap().iter().all(|step| matches!(step, Step::Keep { .. })));
    let mut small = specs[0].clone();
    small.disk = GIB;
    small.cpu_millis = 1000;
    small.anti_affinity = Some("web".into());
    let steps = plan(&specs, &[view(&small), view(&specs[1])]).unwrap();
    let Step::Change { name, change, words } = &steps[0] else { panic!("{steps:?}") };
    assert_eq!((name.as_str(), change.disk, change.cpu_millis), ("web1", Some(10 * GIB), Some(500)));
    assert_eq!(change.anti_affinity.as_deref(), Some(""));
    assert_eq!(words, &["disk 1 GiB -> 10 GiB", "cpus 1 -> 0.5", "anti-affinity \"web\" -> \"\""]);
}

#[test]
fn all_that_cannot_be_done_is_told_before_anything_is_done() {
    let specs = specs();
    let large = Spec { disk: 20 * GIB, ..specs[0].clone() };
    let other = Spec { template: "debian-13".into(), node: Some("node9".into()), ..specs[1].clone() };
    let error = plan(&specs, &[view(&large), view(&other)]).unwrap_err().to_string();
    assert!(error.contains("web1: a disk does not become smaller") && error.contains("web2: template, node cannot"), "{error}");
}

#[test]
fn addresses_that_the_center_chose_are_no_difference() {
    let specs = specs();
    let given = Spec { addresses: vec!["192.0.2.9".parse().unwrap()], ..specs[0].clone() };
    assert!(matches!(plan(&specs[..1], &[view(&given)]).unwrap()[0], Step::Keep { .. }));
}
