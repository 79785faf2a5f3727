//! Everything by which a machine without a system gets `lodge.efi` and the bundle: HTTP, TFTP, and a proxy DHCP that says
//! where they are. It reads the store to know who has something to install; it changes nothing but join tokens.

pub mod bundle;
pub mod dhcp;
pub mod http;
pub mod known;
pub mod offer;
pub mod tftp;
