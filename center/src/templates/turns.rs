//! Which tasks about templates may be ordered now. Pure.
//!
//! Images are named by what is in them, so nobody knows beforehand which image an import makes: no image is removed while an import may
//! be making it anew, and no import begins while an image is being removed. The removals, which are short, go first.

/// Where a task about a template stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Ordered, and not done.
    Ordered,
    /// It could be ordered.
    Waits,
    /// It is not to be ordered yet.
    Rests,
}

/// What may be ordered: all removals that wait, all imports that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Removals.
    pub removals: bool,
    /// Imports.
    pub imports: bool,
}

/// Whose turn it is.
pub fn whose(removals: &[Turn], imports: &[Turn]) -> Allowed {
    let may_remove = !imports.contains(&Turn::Ordered);
    let removes = removals.contains(&Turn::Ordered) || (may_remove && removals.contains(&Turn::Waits));
    Allowed { removals: may_remove, imports: !removes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;

    #[test]
    fn removals_go_first_but_wait_for_imports_that_go_on() {
        assert_eq!(whose(&[], &[Turn::Waits]), Allowed { removals: true, imports: true });
        assert_eq!(whose(&[Turn::Waits], &[Turn::Waits]), Allowed { removals: true, imports: false });
        assert_eq!(whose(&[Turn::Waits], &[Turn::Ordered, Turn::Waits]), Allowed { removals: false, imports: true });
        assert_eq!(whose(&[Turn::Rests], &[Turn::Waits]), Allowed { removals: true, imports: true });
        assert_eq!(whose(&[Turn::Ordered], &[Turn::Waits]), Allowed { removals: true, imports: false });
    }

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        proptest::collection::vec(select(vec![Turn::Ordered, Turn::Waits, Turn::Rests]), 0..4)
    }

    proptest! {
        #[test]
        fn they_never_meet_and_never_wait_for_each_other(removals in turns(), imports in turns()) {
            prop_assume!(!(removals.contains(&Turn::Ordered) && imports.contains(&Turn::Ordered)));
            let allowed = whose(&removals, &imports);
            let begins = |turns: &[Turn], may: bool| turns.contains(&Turn::Ordered) || (may && turns.contains(&Turn::Waits));
            let (removes, makes) = (begins(&removals, allowed.removals), begins(&imports, allowed.imports));
            prop_assert!(!(removes && makes));
            let someone = |turns: &[Turn]| turns.iter().any(|turn| *turn != Turn::Rests);
            prop_assert_eq!(removes || makes, someone(&removals) || someone(&imports));
        }
    }
}
