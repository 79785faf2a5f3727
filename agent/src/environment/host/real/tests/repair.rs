//! Repair environments: a clean root, and the broken one beside it.

use std::os::unix::fs::FileExt as _;

use lodge_model::environment::order::{Beside, Verdict};
use lodge_sys::idmap::with_file_owner;

use super::super::layout::BESIDE;
use super::*;

/// The order for the repair of what another order was for.
fn repair_of(order: &Assignment) -> Assignment {
    let beside = Some(Beside::Repair { template: order.template.clone() });
    Assignment { name: "web1-repair".into(), epoch: order.epoch + 1, beside, ..order.clone() }
}

/// Take its disk, which is there, check and mount it.
fn open(node: &Real, order: &Assignment) {
    for action in [Action::Hold(order.clone().into()), Action::CheckDisk, Action::Mount(order.clone().into())] {
        twice(node, order.id, &action);
    }
}

/// Made and used once: a file that was written, and one of the template that was changed, in what was its root.
fn used(node: &Real, order: &Assignment) {
    bring_up(node, order);
    let root = node.layout.on_node(order.id).join("root");
    let write = || -> Result<()> {
        fs::write(root.join("root/data"), "precious\n")?;
        fs::write(root.join("etc/fstab"), "nonsense\n")?;
        Ok(fs::remove_file(root.join("sbin/init"))?)
    };
    with_file_owner(order.id_base, write).unwrap();
    let_go(node, order);
}

#[test]
fn a_broken_root_is_mended_from_a_clean_one_and_is_its_own_again() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        used(&node, &order);
        let repair = repair_of(&order);
        open(&node, &repair);
        let on_node = node.layout.on_node(order.id);
        let (root, beside) = (on_node.join("root"), on_node.join(BESIDE));
        assert!(root.join("sbin/init").exists() && !beside.join("sbin/init").exists());
        assert_eq!(
            fs::read_to_string(beside.join("etc/hostname")).unwrap(),
            "template\n",
            "what was never changed shows through"
        );
        assert!(node.look(repair.id, &[]).unwrap().mended.is_empty());

        let refused = format!("{:#}", super::super::disk::lock_file(&node.layout.disk(order.id)).unwrap_err());
        assert!(refused.contains("somebody else has it"), "the environment itself does not get its disk meanwhile: {refused}");

        twice(&node, repair.id, &Action::Create(repair.clone().into()));
        twice(&node, repair.id, &Action::Start);
        let Container::Running { pid, .. } = node.look(repair.id, &[]).unwrap().container else { panic!() };
        let inside = PathBuf::from(format!("/proc/{pid}/root"));
        assert!(fs::read_to_string(root.join("etc/motd")).unwrap().contains("/repair"));
        assert_eq!(fs::read_to_string(root.join("etc/hostname")).unwrap(), "web1-repair\n");
        let options = fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
        let options = options.lines().find(|line| line.split(' ').nth(1) == Some("/repair")).unwrap().to_owned();
        assert!(options.contains("nosuid") && options.contains("nodev") && options.contains("rw"), "{options}");
        let mend = || -> Result<()> {
            assert_eq!(fs::read_to_string(inside.join("repair/root/data"))?, "precious\n");
            fs::copy(inside.join("sbin/init"), inside.join("repair/sbin/init"))?;
            fs::write(inside.join("repair/etc/fstab"), "mended\n")?;
            Ok(fs::write(inside.join("root/note"), "gone with the repair\n")?)
        };
        with_file_owner(repair.id_base, mend).unwrap();
        twice(&node, repair.id, &Action::Kill);
        twice(&node, repair.id, &Action::Delete);
        let_go(&node, &repair);

        let again = Assignment { epoch: 3, ..order.clone() };
        open(&node, &again);
        assert_eq!(fs::read_to_string(root.join("etc/fstab")).unwrap(), "mended\n");
        assert_eq!(fs::read_to_string(root.join("root/data")).unwrap(), "precious\n");
        assert!(root.join("sbin/init").exists() && !root.join("root/note").exists());
        assert_eq!(fs::read_to_string(root.join("etc/hostname")).unwrap(), "template\n", "a name is for the clean system");
        let_go(&node, &again);
        let _ = fs::remove_file(console_of(order.id));
    });
}

#[test]
fn a_file_system_whose_bytes_were_overwritten_is_mended_and_what_was_done_is_told() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        used(&node, &order);
        let disk = File::options().write(true).open(node.layout.disk(order.id)).unwrap();
        // The superblock, the group descriptors, and what is next to them.
        disk.write_all_at(&[0xA5; 64 << 10], 0).unwrap();
        let repair = repair_of(&order);
        open(&node, &repair);
        let told = node.look(repair.id, &[]).unwrap().mended;
        assert!(told.contains("FIXED") || told.contains("MODIFIED"), "{told}");
        let beside = node.layout.on_node(order.id).join(BESIDE);
        assert_eq!(fs::read_to_string(beside.join("root/data")).unwrap(), "precious\n");
        twice(&node, repair.id, &Action::Create(repair.clone().into()));
        let root = node.layout.on_node(order.id).join("root");
        assert_eq!(fs::read_to_string(root.join("root/e2fsck.txt")).unwrap(), told);
        twice(&node, repair.id, &Action::Kill);
        twice(&node, repair.id, &Action::Delete);
        let_go(&node, &repair);
        let _ = fs::remove_file(console_of(order.id));
    });
}

#[test]
fn what_has_lost_its_name_is_found_in_what_is_repaired() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        used(&node, &order);
        // The root directory of the disk: all that is on it has no name any more.
        run("/usr/sbin/debugfs", &["-w", "-R", "clri <2>", text(&node.layout.disk(order.id))]);
        let repair = repair_of(&order);
        open(&node, &repair);
        let found = node.layout.on_node(order.id).join(BESIDE).join("lost+found");
        let names: Vec<_> = fs::read_dir(&found).unwrap().flatten().map(|entry| entry.path().join("root/data")).collect();
        let data = names.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("{names:?}"));
        assert_eq!(fs::read_to_string(data).unwrap(), "precious\n");
        let_go(&node, &repair);
    });
}

#[test]
fn a_reinstalled_one_has_a_new_system_and_its_old_files_beside_it() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        used(&node, &order);
        let on_node = node.layout.on_node(order.id);
        let (root, beside) = (on_node.join("root"), on_node.join(BESIDE));
        for generation in [1, 2] {
            let old = Some(Beside::Old { template: order.template.clone(), generation });
            let new = Assignment { epoch: u64::from(generation) + 1, beside: old, ..order.clone() };
            // The second time it is as it was left.
            open(&node, &new);
            assert!(root.join("sbin/init").exists() && !root.join("root/data").exists(), "a clean system");
            let data = if generation == 1 { "root/data" } else { "root/second" };
            assert!(beside.join(data).exists() && beside.join("etc/hostname").exists());
            assert_eq!(beside.join("root/data").exists(), generation == 1, "what was there before that is gone");
            twice(&node, new.id, &Action::Create(new.clone().into()));
            assert_eq!(fs::read_to_string(root.join("etc/hostname")).unwrap(), "web1\n");
            assert!(root.join("root/.ssh/authorized_keys").exists(), "the keys are written again");
            twice(&node, new.id, &Action::Start);
            let Container::Running { pid, .. } = node.look(new.id, &[]).unwrap().container else { panic!() };
            assert!(PathBuf::from(format!("/proc/{pid}/root/old/{data}")).exists());
            with_file_owner(new.id_base, || Ok(fs::write(root.join("root/second"), "new\n")?)).unwrap();
            twice(&node, new.id, &Action::Kill);
            twice(&node, new.id, &Action::Delete);
            let_go(&node, &new);
            let _ = fs::remove_file(console_of(order.id));
        }
    });
}

#[test]
fn a_disk_is_looked_at_without_a_write_and_mended_when_asked() {
    on_site(|site| {
        let node = site.node(1);
        let order = site.order(1);
        used(&node, &order);
        let disk = node.layout.disk(order.id);
        let check = |mend| {
            let done = node.task(&TaskKind::CheckDisk { environment: order.id, mend }, &Silent).unwrap();
            assert!(node.loops_of(order.id).unwrap().is_empty(), "its disk is let go of");
            done.check.unwrap()
        };
        assert_eq!((check(false).verdict, check(true).verdict), (Verdict::InOrder, Verdict::InOrder));
        run("/usr/sbin/debugfs", &["-w", "-R", "sif <12> links_count 77", text(&disk)]);
        let before = fs::read(&disk).unwrap();
        let found = check(false);
        assert!(found.verdict == Verdict::Damaged && found.text.contains("ref count"), "{found:?}");
        assert!(fs::read(&disk).unwrap() == before, "nothing is written");
        let mended = check(true);
        assert!(
            mended.verdict == Verdict::Mended && mended.text.contains("FIXED") || mended.text.contains("MODIFIED"),
            "{mended:?}"
        );
        assert_eq!(check(false).verdict, Verdict::InOrder);
        // All of the beginning, and no more of the superblock than its features, which are now those of nobody.
        for (bytes, at) in [(64 << 10, 0), (8, 1024 + 0x60)] {
            let overwritten = File::options().write(true).open(&disk).unwrap();
            overwritten.write_all_at(&vec![0xA7; bytes], at).unwrap();
            assert_eq!((check(false).verdict, check(true).verdict), (Verdict::Damaged, Verdict::Mended));
            assert_eq!(check(false).verdict, Verdict::InOrder);
        }
        let _held = super::super::disk::lock_file(&disk).unwrap();
        let refused = node.task(&TaskKind::CheckDisk { environment: order.id, mend: true }, &Silent).unwrap_err().to_string();
        assert!(refused.contains("somebody else has it"), "{refused}");
    });
}
