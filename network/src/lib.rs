//! Brings a machine's uplink up: links, a fixed address or a DHCP lease, and what the DHCP answer says of the center.
