//! What users have and may have. Pure.

use lodge_model::environment::spec::Spec;
use lodge_model::environment::view::Quota;
use lodge_model::layout::MIB;

use super::records::Environment;

/// What a user has, of all environments there are. What is shut down counts, for it can be started at any time, and what is being
/// removed counts until it is gone.
pub fn used<'a>(environments: impl Iterator<Item = &'a Environment>, owner: &str) -> Quota {
    let none = Quota { environments: Some(0), memory: Some(0), disk: Some(0), cpu_millis: Some(0) };
    environments.filter(|environment| environment.owner.as_deref() == Some(owner)).fold(none, |sum, environment| {
        let spec = &environment.spec;
        Quota {
            environments: sum.environments.map(|count| count.saturating_add(1)),
            memory: sum.memory.map(|bytes| bytes.saturating_add(spec.memory)),
            disk: sum.disk.map(|bytes| bytes.saturating_add(spec.disk)),
            cpu_millis: sum.cpu_millis.map(|millis| millis.saturating_add(spec.cpu_millis)),
        }
    })
}

/// Whether a user may have this besides what she has; `former` is what it takes the place of. A limit that was lowered below what she
/// has keeps her from nothing but having more.
pub fn check(limit: &Quota, used: &Quota, wanted: &Spec, former: Option<&Spec>) -> Result<(), String> {
    let size = |of: fn(&Spec) -> u64| (of(wanted), former.map_or(0, of));
    let wide = |amount: Option<u32>| amount.map(u64::from);
    let amounts = [
        ("environments", "", wide(limit.environments), wide(used.environments), size(|_| 1), 1),
        ("memory", " MiB", limit.memory, used.memory, size(|spec| spec.memory), MIB),
        ("disk", " MiB", limit.disk, used.disk, size(|spec| spec.disk), MIB),
        ("cpu-millis", "", wide(limit.cpu_millis), wide(used.cpu_millis), size(|spec| spec.cpu_millis.into()), 1),
    ];
    for (what, unit, limit, used, (wanted, former), divisor) in amounts {
        let (Some(limit), used) = (limit, used.unwrap_or(0)) else { continue };
        let after = used.saturating_sub(former).saturating_add(wanted);
        if after > limit && wanted > former {
            let [after, limit, used] = [after, limit, used].map(|amount| amount / divisor);
            return Err(format!(
                "{what}: this makes {after}{unit} in all, and the quota is {limit}{unit} (in use: {used}{unit}); destroy or \
                 shrink something, or ask an operator for more"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environments::testing::{environment, spec};

    #[test]
    fn each_limit_is_told_by_name() {
        let limit = Quota { environments: Some(2), memory: Some(300 * MIB), disk: None, cpu_millis: Some(5000) };
        let mine = |number| Environment { owner: Some("ann".into()), ..environment("a", number) };
        let (one, two) = ([mine(1), environment("b", 2)], [mine(1), mine(2)]);
        assert_eq!(check(&limit, &used(one.iter(), "ann"), &spec("c"), None), Ok(()));
        let why = check(&limit, &used(two.iter(), "ann"), &spec("c"), None).unwrap_err();
        assert!(why.starts_with("environments: this makes 3 in all, and the quota is 2"), "{why}");
        let big = Spec { memory: 200 * MIB, ..spec("a") };
        let why = check(&limit, &used(two.iter(), "ann"), &big, Some(&spec("a"))).unwrap_err();
        assert!(why.starts_with("memory: this makes 328 MiB"), "{why}");
        // Who is over the limit already may still make something smaller.
        let tight = Quota { memory: Some(MIB), ..Quota::default() };
        assert_eq!(check(&tight, &used(two.iter(), "ann"), &spec("a"), Some(&big)), Ok(()));
        assert_eq!(check(&Quota::default(), &used(two.iter(), "ann"), &big, None), Ok(()));
    }
}
