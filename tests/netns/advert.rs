//! Router advertisements, sent by whoever wants to be a router.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::Ipv6MulticastHops;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt, socket,
};

/// Sends all on a link the news that the sender is their default router, and that 2001:db8:bad::/64 is theirs to take
/// addresses of (RFC 4861, 4.2 and 4.6.2). Waits for the link-local address that it comes from.
pub fn send(interface: &str) {
    wait_for("a link-local address", || {
        let addresses = crate::run(&format!("ip -6 addr show dev {interface}"));
        addresses.contains("fe80::") && !addresses.contains("tentative")
    });
    let router_lifetime = 1800_u16.to_be_bytes();
    let lifetime = 3600_u32.to_be_bytes();
    let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0).octets();
    let message = [
        // The kernel fills in the checksum.
        &[134, 0, 0, 0, 64, 0][..],
        &router_lifetime,
        &[0; 8],
        // On link, and to be used for addresses of one's own.
        &[3, 4, 64, 0xc0],
        &lifetime,
        &lifetime,
        &[0; 4],
        &prefix,
    ]
    .concat();
    let icmp = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6).expect("raw");
    // Of another hop count it could come from afar, and is not heeded.
    setsockopt(&icmp, Ipv6MulticastHops, &255).expect("hops");
    let scope = if_nametoindex(interface).expect(interface);
    let all_nodes: Ipv6Addr = "ff02::1".parse().expect("address");
    let to = SockaddrIn6::from(SocketAddrV6::new(all_nodes, 0, 0, scope));
    sendto(icmp.as_raw_fd(), &message, &to, MsgFlags::empty()).expect("send");
}

/// Waits for something that the kernel does by itself.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
