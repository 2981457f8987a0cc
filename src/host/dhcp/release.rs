//! Gives a lease back in the name of the guest that has it, so that dnsmasq forgets it while it runs.
//!
//! dnsmasq believes its leases, whatever its host entries say: an address that is leased goes to nobody else. It does heed
//! a guest that gives its lease back (RFC 2131, 4.4.6; RFC 8415, 18.2.7), and asks for no proof. The message is sent on this
//! host, bound to the bridge as if it had come in there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};

use crate::host::dhcp::leases::{Client, Lease};
use crate::value::Mac;

/// Sends the message. Whether it was heeded shows in the lease file: there is no answer to it.
pub(super) fn send(lease: &Lease, server_duid: Option<&[u8]>, bridge: &str) -> io::Result<()> {
    let Some(server) = own_address(bridge, lease.address)? else {
        return Err(io::Error::other(format!("`{bridge}` has no address beside {}", lease.address)));
    };
    let (message, port, any): (Vec<u8>, u16, IpAddr) = match (&lease.client, lease.address, server) {
        (Client::Mac(mac), IpAddr::V4(address), IpAddr::V4(server)) => {
            (release_v4(*mac, address, server), 67, Ipv4Addr::UNSPECIFIED.into())
        }
        (Client::Duid { duid, iaid }, IpAddr::V6(address), _) => {
            let server_duid = server_duid.ok_or_else(|| io::Error::other("the lease file names no server"))?;
            (release_v6(duid, *iaid, server_duid, address), 547, Ipv6Addr::UNSPECIFIED.into())
        }
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    setsockopt(&socket, BindToDevice, &bridge.into())?;
    socket.send_to(&message, SocketAddr::new(server, port)).map(drop)
}

/// The address of the host on a bridge, on the subnet of another address. It is how the server calls itself there.
fn own_address(bridge: &str, other: IpAddr) -> io::Result<Option<IpAddr>> {
    let is_beside = |own: IpAddr, mask: IpAddr| match (own, mask, other) {
        (IpAddr::V4(own), IpAddr::V4(mask), IpAddr::V4(other)) => own & mask == other & mask,
        (IpAddr::V6(own), IpAddr::V6(mask), IpAddr::V6(other)) => own & mask == other & mask,
        _ => false,
    };
    let ip = |storage: Option<nix::sys::socket::SockaddrStorage>| {
        let storage = storage?;
        let v4 = storage.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or(storage.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    };
    let mine = getifaddrs()?.filter(|it| it.interface_name == bridge);
    Ok(mine
        .filter_map(|it| ip(it.address).zip(ip(it.netmask)))
        .find(|(own, mask)| is_beside(*own, *mask))
        .map(|it| it.0))
}

/// DHCPRELEASE (RFC 2131, 2 and 4.4.6).
fn release_v4(mac: Mac, address: Ipv4Addr, server: Ipv4Addr) -> Vec<u8> {
    // BOOTREQUEST over Ethernet, and a transaction that nobody answers.
    let mut message = vec![1, 1, 6, 0];
    message.resize(12, 0);
    message.extend(address.octets());
    message.resize(28, 0);
    message.extend(mac.0);
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63]);
    // The type of the message, the server, the end.
    message.extend([53, 1, 7, 54, 4]);
    message.extend(server.octets());
    message.push(255);
    message.resize(300, 0);
    message
}

/// Release (RFC 8415, 18.2.7).
fn release_v6(duid: &[u8], iaid: u32, server_duid: &[u8], address: Ipv6Addr) -> Vec<u8> {
    let option = |code: u16, value: &[u8]| -> Vec<u8> {
        // Options are short: a DUID has at most 130 bytes.
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        [&code.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
    };
    // The lifetimes of an address that is given back are 0, and so are the times of renewal.
    let address = option(5, &[&address.octets()[..], &[0; 8]].concat());
    let association = option(3, &[&iaid.to_be_bytes()[..], &[0; 8], &address].concat());
    [&[8, 0, 0, 0][..], &option(1, duid), &option(2, server_duid), &association, &option(8, &[0, 0])].concat()
}
