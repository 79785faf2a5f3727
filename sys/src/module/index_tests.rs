//! Tests of the module index.

use super::*;
use proptest::prelude::*;

const DEP: &str = "\
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko kernel/fs/mbcache.ko
kernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko
kernel/lib/crc16.ko:
kernel/fs/mbcache.ko:
kernel/crypto/crc32c_generic.ko:
kernel/drivers/md/dm-mod.ko.xz:
kernel/drivers/net/ring-a.ko:
kernel/drivers/net/ring_b.ko:
";
const SOFTDEP: &str = "# soft\nsoftdep ext4 pre: crc32c post: dm-mod\nsoftdep ring_a pre: ring_b\nsoftdep ring_b pre: ring_a\n";
const ALIAS: &str = "\
# Aliases extracted from modules themselves.
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e
alias acpi*:PNP0C0C:* button
alias fs-ext4 ext4
alias crc32c crc32c_generic
alias crc32c not_in_this_initrd
alias usb:v*p*d*dc*dsc*dp*ic08isc06ip50in* usb_storage
alias input:b*v*p*e*-e*1,*k*74,*r*a*m*l*s*f*w* joydev
alias of:N*T*Cvendor,[a-c]x[!9]* odd-one
";

fn index() -> Index {
    Index::parse(DEP, ALIAS.to_owned(), SOFTDEP)
}

fn names(index: &Index, module: &str) -> Vec<String> {
    index.plan(module).unwrap().into_iter().map(|step| step.name).collect()
}

#[test]
fn what_a_module_needs_comes_before_it() {
    let plan = index().plan("ext4").unwrap();
    let order: Vec<&str> = plan.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(order, ["crc32c_generic", "mbcache", "crc16", "jbd2", "ext4", "dm_mod"]);
    let required: Vec<bool> = plan.iter().map(|step| step.required).collect();
    assert_eq!(required, [false, true, true, true, true, false]);
}

#[test]
fn hyphens_and_rings_are_no_trouble() {
    assert_eq!(names(&index(), "dm-mod"), ["dm_mod"]);
    assert_eq!(names(&index(), "ring-a"), ["ring_b", "ring_a"]);
    assert!(index().plan("nothing").is_none());
    // An alias is as good as a name, also where a soft dependency gives it.
    assert_eq!(names(&index(), "fs-ext4").last().map(String::as_str), Some("dm_mod"));
}

#[test]
fn devices_find_their_drivers() {
    let index = index();
    let find = |alias: &str| index.for_modalias(alias);
    assert_eq!(find("pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00"), ["virtio_pci"]);
    assert_eq!(find("acpi:PNP0C0C:"), ["button"]);
    assert_eq!(find("fs-ext4"), ["ext4"]);
    assert_eq!(find("usb:v0781p5567d0126dc00dsc00dp00ic08isc06ip50in00"), ["usb_storage"]);
    assert_eq!(find("input:b0019v0000p0001e0000-e0,1,k74,ramlsfw"), ["joydev"]);
    assert_eq!(find("of:NxTyCvendor,bx1"), ["odd_one"]);
    assert_eq!(find("of:NxTyCvendor,bx9"), [""; 0]);
    assert_eq!(find("pci:v00008086d00001234"), [""; 0]);
}

#[test]
fn patterns_match_as_fnmatch_does() {
    for (pattern, text, expected) in [
        ("", "", true),
        ("*", "", true),
        ("a*b*c", "aXXbYYc", true),
        ("a*b*c", "aXXbYY", false),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("[]x]y", "]y", true),
        ("[^a]", "a", false),
        ("[a", "[a", true),
        ("\\*", "*", true),
        ("\\*", "x", false),
        ("**a", "ba", true),
    ] {
        assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
    }
}

proptest! {
    #[test]
    fn nothing_makes_the_matcher_panic_or_hang(pattern in "[a-c*?\\[\\]!\\\\-]{0,24}", text in "[a-c]{0,24}") {
        matches(pattern.as_bytes(), text.as_bytes());
    }

    #[test]
    fn a_text_matches_itself_with_stars_put_in(text in "[a-z0-9:]{0,30}", at in any::<prop::sample::Index>()) {
        let at = at.index(text.len() + 1);
        let pattern = format!("{}*{}", &text[..at], &text[at..]);
        prop_assert!(matches(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn no_index_makes_the_parser_panic(dep in ".{0,80}", alias in "(alias )?.{0,80}", soft in "(softdep )?.{0,40}") {
        let index = Index::parse(&dep, alias, &soft);
        let _ = index.for_modalias("pci:v1");
        let _ = index.plan("x");
    }
}
