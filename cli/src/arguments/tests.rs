use super::*;
use clap::CommandFactory as _;
use clap::error::ErrorKind;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definitions_hold() {
    Arguments::command().debug_assert();
}

#[test]
fn a_whole_login_line_is_read() {
    let ca = format!("sha256:{}", "ab".repeat(32));
    let arguments = parse(&format!("lodge login https://10.0.0.1:8443 --ca {ca} --token t0k")).unwrap();
    assert!(matches!(arguments.command, Command::Login(login) if login.ca.to_string() == ca && login.token == "t0k"));
    let error = parse("lodge login https://10.0.0.1:8443 --ca sha256:ab --token t").unwrap_err();
    assert!(error.to_string().contains("64 hexadecimal digits"), "{error}");
}

#[test]
fn json_is_taken_anywhere() {
    assert!(parse("lodge node ls --json").unwrap().json && parse("lodge --json node ls").unwrap().json);
}

#[test]
fn nothing_is_destroyed_by_a_line_that_contradicts_itself() {
    let kind = |line: &str| parse(line).unwrap_err().kind();
    assert_eq!(kind("lodge node forget n1 --yes --dry-run"), ErrorKind::ArgumentConflict);
    assert_eq!(kind("lodge node reinstall n1 --wipe"), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind("lodge node forget"), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind("lodge node format n1"), ErrorKind::InvalidSubcommand);
}

#[test]
fn environments_are_asked_for_in_words_of_people() {
    let line =
        "lodge env create web1 --template debian-13 --disk 10G --memory 512M --cpus 0.5 --ssh-key a --ssh-key b --label r=a";
    let Command::Env(Environment::Create(create)) = parse(line).unwrap().command else { panic!("{line}") };
    assert_eq!((create.disk, create.memory, create.cpus), (10 << 30, 512 << 20, 500));
    assert_eq!((create.ssh_key.len(), create.label.len(), create.wait.wait), (2, 1, false));
    let Command::Env(Environment::Exec(exec)) = parse("lodge env exec web1 -- ls -l --json").unwrap().command else {
        panic!("exec");
    };
    assert_eq!(exec.command, ["ls", "-l", "--json"]);
    let kind = |line: &str| parse(line).unwrap_err().kind();
    assert_eq!(kind("lodge env create web1"), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind("lodge env create web1 --template t --disk ten"), ErrorKind::ValueValidation);
    assert_eq!(kind("lodge env set web1"), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind("lodge env exec web1"), ErrorKind::MissingRequiredArgument);
    assert_eq!(kind("lodge env destroy web1 --yes --dry-run"), ErrorKind::ArgumentConflict);
    assert_eq!(kind("lodge apply"), ErrorKind::MissingRequiredArgument);
}

#[test]
fn a_drain_is_planned_ordered_or_cancelled_and_not_two_of_them() {
    let Command::Node(Node::Drain(drain)) =
        parse("lodge node drain n1 --deadline 15m --reason memory --no-wait").unwrap().command
    else {
        panic!("drain");
    };
    assert_eq!((drain.deadline, drain.reason.as_str(), drain.cancel), (Some(900), "memory", false));
    let kind = |line: &str| parse(line).unwrap_err().kind();
    assert_eq!(kind("lodge node drain n1 --cancel --deadline 15m"), ErrorKind::ArgumentConflict);
    assert_eq!(kind("lodge node drain n1 --wait --no-wait"), ErrorKind::ArgumentConflict);
    assert_eq!(kind("lodge env move web1 --wait --dry-run"), ErrorKind::ArgumentConflict);
    assert_eq!(kind("lodge cluster set"), ErrorKind::MissingRequiredArgument);
    assert!(parse("lodge node poweroff n1 --yes --reason x").is_ok() && parse("lodge env move web1 --to n2 --restart").is_ok());
}

#[test]
fn a_bmc_is_known_by_one_thing_and_its_password_is_never_an_argument() {
    let ca = format!("sha256:{}", "ab".repeat(32));
    let line = format!("lodge node bmc set n1 --url https://10.0.9.1 --user lodge --fingerprint {ca}");
    let Command::Node(Node::Bmc(Bmc::Set(set))) = parse(&line).unwrap().command else { panic!("{line}") };
    assert!(set.fingerprint.is_some() && set.password_file.is_none() && !set.force);
    let kind = |line: &str| parse(line).unwrap_err().kind();
    assert_eq!(kind(&format!("{line} --ca ca.pem")), ErrorKind::ArgumentConflict);
    assert_eq!(kind(&format!("{line} --password hunter2")), ErrorKind::UnknownArgument);
    assert_eq!(kind("lodge node bmc set n1 --url https://10.0.9.1"), ErrorKind::MissingRequiredArgument);
}

#[test]
fn a_cluster_is_restarted_or_its_restart_is_steered_and_not_both() {
    let Command::Cluster(Cluster::Reboot(reboot)) = parse("lodge cluster reboot --at-once 2 --yes --wait").unwrap().command
    else {
        panic!("reboot");
    };
    assert_eq!((reboot.at_once, reboot.patience, reboot.deadline), (2, 900, None));
    let kind = |line: &str| parse(line).unwrap_err().kind();
    assert_eq!(kind("lodge cluster reboot --continue --cancel"), ErrorKind::ArgumentConflict);
    assert_eq!(kind("lodge cluster reboot --status --at-once 2"), ErrorKind::ArgumentConflict);
    assert!(parse("lodge cluster reboot --continue --wait").is_ok() && parse("lodge cluster reboot --cancel").is_ok());
}

#[test]
fn the_help_says_what_the_exit_status_means() {
    let help = Arguments::command().render_long_help().to_string();
    for word in ["Exit status", "3  there is no such node", "LODGE_TOKEN"] {
        assert!(help.contains(word), "{help}");
    }
}
