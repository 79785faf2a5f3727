//! Network namespaces, each with a thread that lives in it: a node with its uplink, the neighbour at the other end of the uplink's
//! cable, and environments.

use std::{
    net::Ipv4Addr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
};

use lodge_model::{answer::NetworkAnswer, environment::order::Address, ids::EnvironmentId};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{geteuid, gettid},
};
use uuid::Uuid;

use crate::{LinkSpec, On, Uplink, bring_up};

/// The node's own address.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The neighbour's.
pub const WORLD: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace. It goes with its thread when it is dropped.
pub struct Space {
    /// The thread, whose `/proc` entry leads to the namespace.
    pub tid: u32,
    jobs: Sender<Job>,
}

impl Space {
    pub fn new() -> Self {
        let (jobs, orders) = channel::<Job>();
        let (tell, told) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid().as_raw().cast_unsigned()).unwrap();
            orders.iter().for_each(|job| job());
        });
        let space = Self { tid: told.recv().unwrap(), jobs };
        space.ip("link set lo up");
        space
    }

    /// Do something in the namespace and wait for it.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        self.jobs.send(Box::new(move || tell.send(catch_unwind(AssertUnwindSafe(job))).unwrap())).unwrap();
        told.recv().unwrap().unwrap_or_else(|panic| resume_unwind(panic))
    }

    pub fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || tool("ip", &arguments))
    }

    /// The kernel's index of a link.
    pub fn index(&self, link: &'static str) -> u32 {
        self.run(move || nix::net::if_::if_nametoindex(link).unwrap())
    }

    /// The hardware address of a link.
    pub fn mac(&self, link: &str) -> String {
        let line = self.ip(&format!("-o link show {link}"));
        line.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
    }
}

/// A node on whose uplink's other end is the world.
pub struct Lab {
    pub world: Space,
    pub node: Space,
}

impl Lab {
    /// `None` without root.
    pub fn new() -> Option<Self> {
        if !geteuid().is_root() {
            println!("skipped: network namespaces need root");
            return None;
        }
        let lab = Self { world: Space::new(), node: Space::new() };
        lab.world.ip("link add site0 type veth peer name uplink0");
        lab.world.ip(&format!("addr add {WORLD}/24 dev site0"));
        lab.world.ip("addr add 2001:db8::1/64 dev site0 nodad");
        lab.world.ip("link set site0 up");
        lab.world.ip(&format!("link set uplink0 netns {}", lab.node.tid));
        Some(lab)
    }

    /// The same with the bridge up.
    pub fn bridged() -> Option<Self> {
        let lab = Self::new()?;
        lab.bring_up();
        Some(lab)
    }

    pub fn bring_up(&self) -> Uplink {
        bring_node_up(&self.node, NODE)
    }

    /// A second node beside the first: the world's end of the cable becomes a switch with another one.
    pub fn second_node(&self) -> Space {
        let node = Space::new();
        self.world.ip("link add name switch0 type bridge forward_delay 0");
        self.world.ip("link set site0 master switch0");
        self.world.ip("link add site1 type veth peer name uplink0");
        self.world.ip("link set site1 master switch0");
        for link in ["switch0", "site1"] {
            self.world.ip(&format!("link set {link} up"));
        }
        self.world.ip("addr flush dev site0");
        self.world.ip(&format!("addr add {WORLD}/24 dev switch0"));
        self.world.ip("addr add 2001:db8::1/64 dev switch0 nodad");
        self.world.ip(&format!("link set uplink0 netns {}", node.tid));
        bring_node_up(&node, Ipv4Addr::new(10, 99, 0, 3));
        node
    }
}

fn bring_node_up(node: &Space, address: Ipv4Addr) -> Uplink {
    node.run(move || {
        let config = NetworkAnswer { mac: None, address: format!("{address}/24"), gateway: Some(WORLD.into()), dns: vec![] };
        bring_up(Some(&config), On::Bridge, &mut |_| {}).unwrap().uplink().clone()
    })
}

/// The link of an environment with this number.
pub fn spec(number: u8) -> LinkSpec {
    let address = |ip: String, prefix, gateway: &str| Address {
        ip: ip.parse().unwrap(),
        prefix,
        gateway: Some(gateway.parse().unwrap()),
    };
    LinkSpec {
        id: EnvironmentId(Uuid::from_u128(u128::from(number) << 120 | 0xe)),
        mac: format!("02:00:00:00:00:{number:02x}"),
        addresses: vec![
            address(format!("10.99.0.{number}"), 24, "10.99.0.1"),
            address(format!("2001:db8::{number:x}"), 64, "2001:db8::1"),
        ],
    }
}

pub fn tool(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
