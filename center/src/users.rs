//! Users: who may have environments without being an operator, and how much. A user has a name, tokens and a quota; whatever she makes
//! carries her name as its owner. One function a request, over one transaction.

use jiff::Timestamp;
use lodge_model::environment::view::{Quota, UserOrder, UserToken, UserView};
use lodge_model::node::check_name;
use serde::{Deserialize, Serialize};

use crate::auth::Caller;
use crate::environments::quota;
use crate::environments::records::Environment;
use crate::fault::Fault;
use crate::store::{EventDraft, Record, Tx};
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
    log(tx, format!("user {} was added", user.name), now)?;
    mint(tx, &user, now)
}

/// Change a quota. It may be less than what she has: she then gets nothing more.
pub fn change(tx: &Tx, name: &str, change: &QuotaChange, now: Timestamp) -> Result<UserView, Fault> {
    let user = get(tx, name)?;
    let quota = Quota {
        environments: change.environments.unwrap_or(user.quota.environments),
        memory: change.memory.unwrap_or(user.quota.memory),
        disk: change.disk.unwrap_or(user.quota.disk),
        cpu_millis: change.cpu_millis.unwrap_or(user.quota.cpu_millis),
    };
    let user = User { quota, ..user };
    tx.put(&user)?;
    log(tx, format!("the quota of user {name} was changed"), now)?;
    view(tx, &user)
}

/// Remove a user who has nothing any more, with her tokens.
pub fn remove(tx: &Tx, name: &str, now: Timestamp) -> Result<(), Fault> {
    let user = get(tx, name)?;
    let all = tx.list::<Environment>()?.into_iter();
    let hers: Vec<String> =
        all.filter(|one| one.owner.as_deref() == Some(name)).map(|environment| environment.spec.name).collect();
    if !hers.is_empty() {
        let why = format!("{name} still has environments: {}; destroy them first", hers.join(", "));
        return Err(Fault::conflict(why));
    }
    token::revoke_user(tx, name)?;
    tx.delete::<User>(&user.name)?;
    log(tx, format!("user {name} was removed"), now)
}

/// One more token, for an operator or for herself.
pub fn add_token(tx: &Tx, who: &Caller, name: &str, now: Timestamp) -> Result<UserToken, Fault> {
    let user = visible(tx, who, name)?;
    log(tx, format!("user {name} got another token"), now)?;
    mint(tx, &user, now)
}

/// Take back all her tokens.
pub fn revoke_tokens(tx: &Tx, name: &str, now: Timestamp) -> Result<(), Fault> {
    token::revoke_user(tx, &get(tx, name)?.name)?;
    log(tx, format!("all tokens of user {name} were taken back"), now)
}

fn log(tx: &Tx, text: String, now: Timestamp) -> Result<(), Fault> {
    tx.log(&EventDraft { at: now, machine: None, node: None, kind: "user", text, detail: None })
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
    let used = quota::used(tx.list::<Environment>()?.iter(), &user.name);
    Ok(UserView { name: user.name.clone(), quota: user.quota.clone(), used })
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
    fn a_change_keeps_what_it_does_not_name() {
        let store = Store::in_memory();
        let quota = Quota { memory: Some(1), disk: Some(2), ..Quota::default() };
        store
            .transact_blocking(|tx| {
                add(tx, &UserOrder { name: "ann".into(), quota: quota.clone() }, NOW)?;
                let wanted: QuotaChange = serde_json::from_str(r#"{"disk":null,"cpu-millis":3}"#).unwrap();
                let view = change(tx, "ann", &wanted, NOW)?;
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
                remove(tx, "ann", NOW)?;
                assert!(token::caller(tx, &second, NOW).is_err());
                Ok(())
            })
            .unwrap();
    }
}
