//! Where things are on an installed node and in the initrd, so that no two programs disagree.

/// Mount point of the state partition.
pub const STATE: &str = "/state";
/// What the node is: `lodge_model::node::NodeFile` as JSON, written by the installer, read by init and the agent.
pub const NODE_FILE: &str = "/state/node/node.json";
/// The node's private key (PKCS#8 PEM, mode 0600). It never leaves the machine.
pub const NODE_KEY: &str = "/state/node/key.pem";
/// The node's certificate, signed by the center's CA.
pub const NODE_CERT: &str = "/state/node/cert.pem";
/// The center's CA certificate.
pub const CA_CERT: &str = "/state/node/ca.pem";
/// Bounded service logs, one file a service.
pub const LOG_DIR: &str = "/state/log";
/// Bound on `/var`.
pub const VAR: &str = "/state/var";
/// The center's data, on a node with that role.
pub const CENTER_DATA: &str = "/state/center";
/// Bundles that the center serves to nodes: `lodge-os-<version>.tar.gz`, inside the center's data.
pub const CENTER_BUNDLES: &str = "/state/center/bundles";
/// The data that the share's server exports, on a node with that role.
pub const SHARE_DATA: &str = "/state/share";
/// Where the share is mounted on every worker.
pub const SHARE: &str = "/share";
/// Mount point of the EFI system partition, mounted only while something is changed there.
pub const ESP: &str = "/efi";
/// An answer left on the ESP by the agent: while it is there, a boot from this disk starts the installer, which reinstalls the
/// machine and removes it last. Path on the ESP.
pub const ESP_ANSWER: &str = "lodge/lodge.toml";
/// init's socket (see `initproto`).
pub const INIT_SOCKET: &str = "/run/lodge/init.sock";
/// A one-shot token that the center writes at its start for the agent of its own machine (mode 0600).
pub const LOCAL_JOIN: &str = "/run/lodge/join.json";
/// Facts that the initrd hands to the running system: `lodge_model::node::BootFile` as JSON.
pub const BOOT_FILE: &str = "/run/lodge/boot.json";
/// The public half of the key that signs bundles: 64 hexadecimal digits (Ed25519), in initrd and root.
pub const RELEASE_KEY: &str = "/usr/lib/lodge/release.pub";
/// Name of an answer file, on a medium, on the ESP of a stick, or beside a boot file on a server.
pub const ANSWER_NAME: &str = "lodge.toml";
/// Volume label of a medium that may hold an answer file and a bundle.
pub const MEDIUM_LABEL: &str = "LODGE";
/// Name of the bundle on a medium and below a center's `/boot/`.
pub const BUNDLE_NAME: &str = "lodge-os.tar.gz";
/// Bounded logs of what environments print on their consoles, `<id>.log`.
pub const ENVIRONMENT_LOGS: &str = "/state/log/environments";
/// Socket of the console holder (`agent consoles`).
pub const CONSOLES_SOCKET: &str = "/run/lodge/consoles.sock";
/// Directory of the sockets that crun hands consoles over on, `<id>.sock`.
pub const CONSOLES_DIR: &str = "/run/lodge/consoles";
/// Keeps the mount namespace of the agent, in which environments are mounted, while no agent runs.
pub const AGENT_NAMESPACE: &str = "/run/lodge/agent.mnt";
