//! Against a server that does what the specification says, and against firmware that does not.

use lodge_model::ids::Fingerprint;

use super::*;
use crate::failover::bmc::testing::{Board, Firmware, PASSWORD, USER};

const MACHINE: Uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
const QUICK: Limits = Limits { answer: Duration::from_millis(700), switched: Duration::from_millis(900) };

fn board(firmware: Firmware) -> (Board, Redfish) {
    let board = Board::start(firmware, MACHINE);
    let redfish = Redfish::new(&board.record(lodge_model::ids::NodeId(MACHINE)), QUICK).unwrap();
    (board, redfish)
}

async fn off(redfish: &Redfish) -> Result<String, String> {
    redfish.switch_off(async { Ok(true) }).await.map(|done| done.proof).map_err(|error| format!("{error:#}"))
}

#[tokio::test]
async fn what_was_ordered_is_read_back() {
    let (board, redfish) = board(Firmware::Good(1));
    assert_eq!(off(&redfish).await.unwrap(), "1 was On, took ForceOff, and was read back as Off");
    assert_eq!(off(&redfish).await.unwrap(), "1 was Off already");
    let on = redfish.switch_on(async { Ok(true) }).await.unwrap();
    assert_eq!((on.proof.as_str(), on.was_so), ("1 was Off, took On, and was read back as On", false));
    assert!(redfish.switch_on(async { Ok(true) }).await.unwrap().was_so);
    assert_eq!(board.inside().orders, ["ForceOff", "On"]);
}

#[tokio::test]
async fn an_order_that_is_not_wanted_any_more_is_not_given() {
    let (board, redfish) = board(Firmware::Good(0));
    let error = redfish.switch_off(async { Ok(false) }).await.unwrap_err();
    assert!(error.to_string().contains("not wanted any more"), "{error:#}");
    assert!(board.inside().orders.is_empty());
}

#[tokio::test]
async fn firmware_that_says_yes_and_does_nothing_is_not_believed() {
    let (board, redfish) = board(Firmware::Lies);
    let error = off(&redfish).await.unwrap_err();
    assert!(
        error.contains("took ForceOff") && error.contains("1 is still On") && error.contains("look at the machine"),
        "{error}"
    );
    assert_eq!(board.inside().orders, ["ForceOff"]);
}

#[tokio::test]
async fn a_refusal_a_silence_and_a_lack_are_told_in_its_words() {
    let (_board, redfish) = board(Firmware::Refuses);
    assert!(off(&redfish).await.unwrap_err().contains("The firmware is being updated."));
    let (_board, redfish) = self::board(Firmware::Hangs);
    assert!(off(&redfish).await.unwrap_err().contains("did not answer /redfish/v1/Systems/1/Actions"));
    let (board, redfish) = self::board(Firmware::Graceful);
    assert!(off(&redfish).await.unwrap_err().contains("does not offer ForceOff for 1, only GracefulShutdown"));
    assert!(board.inside().orders.is_empty());
}

#[tokio::test]
async fn another_machine_is_never_switched() {
    let (board, redfish) = board(Firmware::Good(0));
    board.inside().uuid = Uuid::from_u128(5);
    let error = off(&redfish).await.unwrap_err();
    assert!(error.contains("manages the machine 00000000-0000-0000-0000-000000000005 now"), "{error}");
    // The first three fields the other way round: the same machine, told by other firmware.
    board.inside().uuid = Uuid::from_bytes(MACHINE.to_bytes_le());
    off(&redfish).await.unwrap();
    assert_eq!(board.inside().orders, ["ForceOff"]);
}

#[tokio::test]
async fn of_several_systems_one_has_to_be_named() {
    let (board, redfish) = board(Firmware::Good(0));
    board.inside().systems = vec!["left", "right"];
    let error = redfish.look().await.unwrap_err().to_string();
    assert!(error.contains("--system ID, one of left, right"), "{error}");
    let named = |id: &str| {
        let mut record = board.record(lodge_model::ids::NodeId(MACHINE));
        record.system = Some(id.to_owned());
        Redfish::new(&record, QUICK).unwrap()
    };
    assert_eq!(named("right").look().await.unwrap().id, "right");
    assert!(named("middle").look().await.unwrap_err().to_string().contains("no system middle; there is left, right"));
}

#[tokio::test]
async fn only_the_bmc_that_was_meant_is_given_the_password() {
    let board = Board::start(Firmware::Good(0), MACHINE);
    let as_known = |trust: Option<&Trust>, password: &str| {
        Redfish::open(&board.url, (USER, &Secret(password.into())), None, trust, QUICK).unwrap()
    };
    let told = |error: anyhow::Error| format!("{error:#}");
    for wrong in [None, Some(&Trust::Fingerprint(Fingerprint::from_digest([1; 32])))] {
        let error = told(as_known(wrong, PASSWORD).look().await.unwrap_err());
        assert!(error.contains(&format!("--fingerprint {}", board.fingerprint)), "{error}");
    }
    let right = Trust::Fingerprint(board.fingerprint.clone());
    assert_eq!(as_known(Some(&right), PASSWORD).look().await.unwrap().power, Power::On);
    assert_eq!(as_known(Some(&Trust::Ca(board.pem.clone())), PASSWORD).look().await.unwrap().model, "Lodge Board");
    let error = told(as_known(Some(&right), "wrong").look().await.unwrap_err());
    assert!(error.contains("does not know the user lodge") && !error.contains("wrong"), "{error}");
}

#[tokio::test]
async fn nobody_there_and_no_address_are_told() {
    let (board, redfish) = board(Firmware::Good(0));
    board.unplug().await;
    let error = off(&redfish).await.unwrap_err();
    assert!(error.contains("cannot be reached") && error.contains("look at its address"), "{error}");
    for wrong in
        ["http://10.0.0.1", "10.0.0.1", "https://", "https://a:b@10.0.0.1", "https://10.0.0.1/ui/login", "https://10.0.0.1/?x"]
    {
        assert!(base(wrong).is_err(), "{wrong}");
    }
    for right in ["https://10.0.0.1", "https://[fd00::1]:8443/", "https://bmc1/redfish/v1/"] {
        assert_eq!(base(right).unwrap().path(), "/", "{right}");
    }
}
