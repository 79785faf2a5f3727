//! Users: who may have environments without being an operator, and how much. A user has a name, tokens and a quota; whatever she makes
//! carries her name as its owner. One function a request, over one transaction.

use jiff::Timestamp;
use lodge_model::environment::view::{Quota, UserOrder, UserToken, UserView};
use lodge_model::node::check_name;
use serde::{Deserialize, Serialize};

use crate::auth::Caller;
use crate::environments::records::{Environment, Goal};
use crate::fault::Fault;
use crate::store::{Record, Tx};
use crate::token;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Unique among users.
    pub name: String,
    /// What she may have.
    pub quota: Quota,
    /// When she was added.
    pub created: Timestamp,
}

impl Record for User {
    const KIND: &'static str = "user";
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// So much of everything that a quota limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Environments.
    pub environments: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk.
    pub disk: u64,
    /// Thousandths of a processor.
    pub cpu_millis: u32,
}

/// Changes to a quota: what is absent stays, `null` is no limit.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct QuotaChange {
    #[serde(deserialize_with = "given")]
    environments: Option<Option<u32>>,
    #[serde(deserialize_with = "given")]
    memory: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    disk: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    cpu_millis: Option<Option<u32>>,
}

/// Whether an owner may have so much more than she has. What has no owner has no limit.
pub fn check_quota(tx: &Tx, owner: Option<&str>, more: Amount) -> Result<(), Fault> {
    let Some(owner) = owner else { return Ok(()) };
    let user = get(tx, owner)?;
    fits(&user.quota, amount_of(tx, owner)?, more).map_err(|why| Fault::conflict(format!("{owner}'s quota: {why}")))
}

/// All users as an operator sees them, a user herself.
pub fn list(tx: &Tx, who: &Caller) -> Result<Vec<UserView>, Fault> {
    let users = tx.list::<User>()?;
    users.iter().filter(|user| who.sees(Some(&user.name))).map(|user| view(tx, user)).collect()
}

/// One user.
pub fn show(tx: &Tx, who: &Caller, name: &str) -> Result<UserView, Fault> {
    view(tx, &visible(tx, who, name)?)
}

/// Add a user. Answers with her first token.
pub fn add(tx: &Tx, order: &UserOrder, now: Timestamp) -> Result<UserToken, Fault> {
    check_name(&order.name).map_err(|why| Fault::bad_input(format!("name: {why}")))?;
    if tx.get::<User>(&order.name)?.is_some() {
        return Err(Fault::conflict(format!("there is a user {} already; lodge user ls lists them", order.name)));
    }
    let user = User { name: order.name.clone(), quota: order.quota.clone(), created: now };
    tx.put(&user)?;
    mint(tx, &user, now)
}

/// Change a quota. It may be less than what she has: she then gets nothing more.
pub fn change(tx: &Tx, name: &str, change: &QuotaChange) -> Result<UserView, Fault> {
    let user = get(tx, name)?;
    let quota = Quota {
        environments: change.environments.unwrap_or(user.quota.environments),
        memory: change.memory.unwrap_or(user.quota.memory),
        disk: change.disk.unwrap_or(user.quota.disk),
        cpu_millis: change.cpu_millis.unwrap_or(user.quota.cpu_millis),
    };
    let user = User { quota, ..user };
    tx.put(&user)?;
    view(tx, &user)
}

/// Remove a user who has nothing any more, with her tokens.
pub fn remove(tx: &Tx, name: &str) -> Result<(), Fault> {
    let user = get(tx, name)?;
    let hers: Vec<String> = owned(tx, name)?.into_iter().map(|environment| environment.spec.name).collect();
    if !hers.is_empty() {
        let why = format!("{name} still has environments: {}; destroy them first", hers.join(", "));
        return Err(Fault::conflict(why));
    }
    token::revoke_user(tx, name)?;
    tx.delete::<User>(&user.name)
}

/// One more token, for an operator or for herself.
pub fn add_token(tx: &Tx, who: &Caller, name: &str, now: Timestamp) -> Result<UserToken, Fault> {
    mint(tx, &visible(tx, who, name)?, now)
}

/// Take back all her tokens.
pub fn revoke_tokens(tx: &Tx, name: &str) -> Result<(), Fault> {
    token::revoke_user(tx, &get(tx, name)?.name)
}

fn mint(tx: &Tx, user: &User, now: Timestamp) -> Result<UserToken, Fault> {
    Ok(UserToken { user: view(tx, user)?, token: token::mint_user(tx, &user.name, now)? })
}

fn visible(tx: &Tx, who: &Caller, name: &str) -> Result<User, Fault> {
    if who.sees(Some(name)) { get(tx, name) } else { Err(unknown(name)) }
}

fn get(tx: &Tx, name: &str) -> Result<User, Fault> {
    tx.get::<User>(&name)?.ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Fault {
    Fault::not_found(format!("there is no user {name:?}; lodge user ls lists them"))
}

fn view(tx: &Tx, user: &User) -> Result<UserView, Fault> {
    let has = amount_of(tx, &user.name)?;
    let used = Quota {
        environments: Some(has.environments),
        memory: Some(has.memory),
        disk: Some(has.disk),
        cpu_millis: Some(has.cpu_millis),
    };
    Ok(UserView { name: user.name.clone(), quota: user.quota.clone(), used })
}

fn owned(tx: &Tx, name: &str) -> Result<Vec<Environment>, Fault> {
    let all = tx.list::<Environment>()?;
    Ok(all.into_iter().filter(|environment| environment.owner.as_deref() == Some(name)).collect())
}

/// What a user has; stopped environments count, for they can be started at any time. What is being destroyed does not.
fn amount_of(tx: &Tx, name: &str) -> Result<Amount, Fault> {
    let hers = owned(tx, name)?.into_iter().filter(|environment| environment.goal != Goal::Destroyed);
    Ok(hers.map(|environment| Amount::of(environment.spec.disk, environment.spec.memory, environment.spec.cpu_millis)).fold(
        Amount::default(),
        |sum, one| Amount {
            environments: sum.environments.saturating_add(one.environments),
            memory: sum.memory.saturating_add(one.memory),
            disk: sum.disk.saturating_add(one.disk),
            cpu_millis: sum.cpu_millis.saturating_add(one.cpu_millis),
        },
    ))
}

impl Amount {
    /// Of one environment.
    pub fn of(disk: u64, memory: u64, cpu_millis: u32) -> Self {
        Self { environments: 1, memory, disk, cpu_millis }
    }
}

/// Only what is asked for more of is held against the quota: a limit that was lowered below what somebody has must not keep her from
/// changing something else.
fn fits(quota: &Quota, has: Amount, more: Amount) -> Result<(), String> {
    let checks = [
        ("environments", quota.environments.map(u64::from), u64::from(has.environments), u64::from(more.environments)),
        ("bytes of memory", quota.memory, has.memory, more.memory),
        ("bytes of disk", quota.disk, has.disk, more.disk),
        ("thousandths of a processor", quota.cpu_millis.map(u64::from), has.cpu_millis.into(), more.cpu_millis.into()),
    ];
    for (what, limit, has, more) in checks {
        if let Some(limit) = limit.filter(|limit| more > 0 && has.saturating_add(more) > *limit) {
            return Err(format!("{limit} {what} are allowed, {has} are in use, and {more} more are asked for"));
        }
    }
    Ok(())
}

fn given<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(value).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn a_quota_is_a_limit_for_what_is_asked_for_more() {
        let quota = Quota { memory: Some(100), environments: Some(2), ..Quota::default() };
        let has = Amount::of(5, 60, 500);
        assert_eq!(fits(&quota, has, Amount::of(1 << 50, 40, u32::MAX)), Ok(()));
        let why = fits(&quota, has, Amount::of(1, 41, 50)).unwrap_err();
        assert_eq!(why, "100 bytes of memory are allowed, 60 are in use, and 41 more are asked for");
        assert!(fits(&quota, Amount { environments: 2, ..has }, Amount::of(1, 1, 1)).unwrap_err().contains("2 environments"));
        assert!(fits(&quota, has, Amount::of(1, u64::MAX, 1)).is_err());
        // Over the limit already, because it was lowered: only more memory is refused.
        let over = Amount { memory: 500, ..has };
        assert_eq!(fits(&quota, over, Amount { disk: 7, ..Amount::default() }), Ok(()));
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let store = Store::in_memory();
        let quota = Quota { memory: Some(1), disk: Some(2), ..Quota::default() };
        store
            .transact_blocking(|tx| {
                add(tx, &UserOrder { name: "ann".into(), quota: quota.clone() }, NOW)?;
                let wanted: QuotaChange = serde_json::from_str(r#"{"disk":null,"cpu-millis":3}"#).unwrap();
                let view = change(tx, "ann", &wanted)?;
                assert_eq!(view.quota, Quota { memory: Some(1), disk: None, cpu_millis: Some(3), environments: None });
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_user_sees_herself_alone() {
        let store = Store::in_memory();
        store
            .transact_blocking(|tx| {
                for name in ["ann", "bob"] {
                    add(tx, &UserOrder { name: name.into(), quota: Quota::default() }, NOW)?;
                }
                let ann = Caller::User { name: "ann".into() };
                assert_eq!(list(tx, &Caller::Operator)?.len(), 2);
                assert_eq!(list(tx, &ann)?.len(), 1);
                assert!(show(tx, &ann, "bob").is_err() && add_token(tx, &ann, "bob", NOW).is_err());
                let second = add_token(tx, &ann, "ann", NOW)?.token;
                assert_eq!(token::caller(tx, &second, NOW)?, ann);
                remove(tx, "ann")?;
                assert!(token::caller(tx, &second, NOW).is_err());
                Ok(())
            })
            .unwrap();
    }
}
