//! Tokens: 128 random bits in a form that can be read out loud. The center keeps only their digests.
//!
//! A join token belongs to the first machine that uses it, and stays good as long as that machine keeps using it: a machine may
//! wait for days for somebody's approval. It is void `timing::JOIN_TOKEN_TTL` after it was made or last used.

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use lodge_model::ids::{MachineId, hex};
use lodge_model::timing::JOIN_TOKEN_TTL;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use crate::auth::Caller;
use crate::fault::Fault;
use crate::records::{Purpose, TokenRecord};
use crate::store::Tx;

/// Crockford's base 32: no letter that looks like a digit.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const UNKNOWN: &str = "the token is not known to this center (mistyped, expired or taken back); ask for a new one";

/// A new token and the record that goes with it.
pub fn mint(purpose: Purpose, bound: Option<MachineId>, now: Timestamp) -> anyhow::Result<(String, TokenRecord)> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|error| anyhow::anyhow!("{error}")).context("drawing a random token")?;
    let token = encode(u128::from_be_bytes(bytes));
    let expires = (purpose == Purpose::Join).then(|| until(now));
    Ok((token.clone(), TokenRecord { digest: digest(&token), purpose, bound, expires, user: None }))
}

/// A new token of a user, in a transaction of others.
pub fn mint_user(tx: &Tx, name: &str, now: Timestamp) -> Result<String, Fault> {
    let (token, record) = mint(Purpose::User, None, now)?;
    tx.put(&TokenRecord { user: Some(name.to_owned()), ..record })?;
    Ok(token)
}

/// A new join token, in a transaction of others. Join tokens that have expired go on this occasion.
pub fn mint_join(tx: &Tx, bound: Option<MachineId>, now: Timestamp) -> Result<(String, Timestamp), Fault> {
    for old in tx.list::<TokenRecord>()? {
        if old.expires.is_some_and(|expires| expires < now) {
            tx.delete::<TokenRecord>(&old.digest)?;
        }
    }
    let (token, record) = mint(Purpose::Join, bound, now)?;
    tx.put(&record)?;
    Ok((token, record.expires.unwrap_or(now)))
}

/// Let a machine use a token: it becomes the machine's own. Says what the token is good for.
pub fn use_as_machine(tx: &Tx, token: &str, machine: MachineId, now: Timestamp) -> Result<Purpose, Fault> {
    let mut record = find(tx, token, now)?;
    match (record.purpose, record.bound) {
        (Purpose::Operator, _) => return Err(Fault::forbidden("an operator's token does not speak for a machine")),
        (Purpose::User, _) => return Err(Fault::forbidden("a user's token does not speak for a machine")),
        (_, Some(owner)) if owner != machine => {
            let why = format!("this join token belongs to machine {owner}; machine {machine} needs one of its own");
            return Err(Fault::forbidden(why));
        }
        _ => {}
    }
    let half = SignedDuration::try_from(JOIN_TOKEN_TTL / 2).context("halving the life of a token")?;
    let stale = record.expires.is_some_and(|expires| expires.duration_since(now) < half);
    if record.bound.is_none() || stale {
        record.bound = Some(machine);
        record.expires = record.expires.map(|_| until(now));
        tx.put(&record)?;
    }
    Ok(record.purpose)
}

/// Whether a token is an operator's.
pub fn check_operator(tx: &Tx, token: &str, now: Timestamp) -> Result<(), Fault> {
    match find(tx, token, now)?.purpose {
        Purpose::Operator => Ok(()),
        Purpose::User => Err(Fault::forbidden("this is for operators; a user's token does not allow it")),
        Purpose::Join | Purpose::Local => Err(Fault::forbidden("this needs an operator's token; a join token is not one")),
    }
}

/// Whom a token of an operator or a user speaks for.
pub fn caller(tx: &Tx, token: &str, now: Timestamp) -> Result<Caller, Fault> {
    let record = find(tx, token, now)?;
    match (record.purpose, record.user) {
        (Purpose::Operator, _) => Ok(Caller::Operator),
        (Purpose::User, Some(name)) => Ok(Caller::User { name }),
        _ => Err(Fault::forbidden("this needs an operator's or a user's token; a join token is neither")),
    }
}

/// Take back every token of a user.
pub fn revoke_user(tx: &Tx, name: &str) -> Result<(), Fault> {
    for token in tx.list::<TokenRecord>()? {
        if token.purpose == Purpose::User && token.user.as_deref() == Some(name) {
            tx.delete::<TokenRecord>(&token.digest)?;
        }
    }
    Ok(())
}

/// Take back every token of a machine.
pub fn revoke(tx: &Tx, machine: MachineId) -> Result<(), Fault> {
    for token in tx.list::<TokenRecord>()? {
        if token.bound == Some(machine) && token.purpose == Purpose::Join {
            tx.delete::<TokenRecord>(&token.digest)?;
        }
    }
    Ok(())
}

/// The digest under which a token is kept.
pub fn digest(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

fn find(tx: &Tx, token: &str, now: Timestamp) -> Result<TokenRecord, Fault> {
    tx.get::<TokenRecord>(&digest(token))?
        .filter(|record| record.expires.is_none_or(|expires| expires >= now))
        .ok_or_else(|| Fault::unauthorized(UNKNOWN))
}

fn until(now: Timestamp) -> Timestamp {
    SignedDuration::try_from(JOIN_TOKEN_TTL).ok().and_then(|ttl| now.checked_add(ttl).ok()).unwrap_or(Timestamp::MAX)
}

fn encode(mut bits: u128) -> String {
    let mut text = [0; 26];
    for place in text.iter_mut().rev() {
        *place = ALPHABET[(bits & 31) as usize];
        bits >>= 5;
    }
    text.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn machine(number: u128) -> MachineId {
        MachineId(uuid::Uuid::from_u128(number))
    }

    fn refusal(result: Result<Purpose, Fault>) -> u16 {
        match result {
            Err(Fault::Refused(status, _)) => status.as_u16(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_join_token_belongs_to_the_first_machine_that_uses_it() {
        let store = Store::in_memory();
        store
            .transact_blocking(|tx| {
                let (token, _) = mint_join(tx, None, NOW)?;
                assert_eq!(token.len(), 26);
                assert_eq!(use_as_machine(tx, &token, machine(1), NOW)?, Purpose::Join);
                assert_eq!(refusal(use_as_machine(tx, &token, machine(2), NOW)), 403);
                assert_eq!(refusal(use_as_machine(tx, "0000", machine(1), NOW)), 401);
                assert!(check_operator(tx, &token, NOW).is_err());
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_users_token_is_a_users_until_it_is_taken_back() {
        let store = Store::in_memory();
        store
            .transact_blocking(|tx| {
                let ann = mint_user(tx, "ann", NOW)?;
                let bob = mint_user(tx, "bob", NOW)?;
                assert_eq!(caller(tx, &ann, NOW)?, Caller::User { name: "ann".into() });
                assert!(check_operator(tx, &ann, NOW).is_err());
                assert_eq!(refusal(use_as_machine(tx, &ann, machine(1), NOW)), 403);
                revoke_user(tx, "ann")?;
                assert!(caller(tx, &ann, NOW).is_err());
                assert_eq!(caller(tx, &bob, NOW)?.owner(), Some("bob"));
                let (join, _) = mint_join(tx, None, NOW)?;
                assert!(caller(tx, &join, NOW).is_err());
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_token_in_use_stays_good_and_an_unused_one_does_not() {
        let store = Store::in_memory();
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let ttl = JOIN_TOKEN_TTL.as_secs() as i64;
        store
            .transact_blocking(|tx| {
                let (used, _) = mint_join(tx, None, at(0))?;
                let (unused, _) = mint_join(tx, None, at(0))?;
                use_as_machine(tx, &used, machine(1), at(ttl - 10))?;
                use_as_machine(tx, &used, machine(1), at(2 * ttl - 20))?;
                assert_eq!(refusal(use_as_machine(tx, &unused, machine(1), at(ttl + 1))), 401);
                Ok(())
            })
            .unwrap();
    }
}
