//! DHCPv4 and DNS byte by byte, as a guest sees them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use novella::value::Mac;

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
pub const ACK: u8 = 5;

/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a DHCP server said (RFC 2131, 2).
#[derive(Clone, Debug)]
pub struct Told {
    /// The type of the message.
    pub kind: u8,
    pub address: Ipv4Addr,
    /// Where to boot from (`siaddr`).
    pub next_server: Ipv4Addr,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Told {
    fn read(message: &[u8]) -> Self {
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&message[at..at + 4]).expect("four bytes"));
        let mut options = BTreeMap::new();
        read_options(&message[240..], &mut options);
        // Options may go on in the fields of the file and of the server's name (RFC 2132, 9.3).
        let overload = options.get(&52).map_or(0, |it: &Vec<u8>| it[0]);
        for (bit, field) in [(1, 108..236), (2, 44..108)] {
            if overload & bit != 0 {
                read_options(&message[field], &mut options);
            }
        }
        Self { kind: options[&53][0], address: address(16), next_server: address(20), options }
    }

    pub fn bytes(&self, option: u8) -> Option<&[u8]> {
        self.options.get(&option).map(Vec::as_slice)
    }

    /// A text, without the zero at its end that some clients want.
    pub fn text(&self, option: u8) -> Option<&str> {
        let text = std::str::from_utf8(self.bytes(option)?).expect("text");
        Some(text.strip_suffix('\0').unwrap_or(text))
    }

    pub fn addresses(&self, option: u8) -> Vec<Ipv4Addr> {
        let bytes = self.bytes(option).unwrap_or_default();
        bytes.chunks(4).map(|it| <[u8; 4]>::try_from(it).expect("four bytes").into()).collect()
    }

    pub fn number(&self, option: u8) -> Option<u32> {
        Some(self.bytes(option)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }
}

fn read_options(mut bytes: &[u8], into: &mut BTreeMap<u8, Vec<u8>>) {
    while let [code, rest @ ..] = bytes {
        match code {
            0 => bytes = rest,
            255 => return,
            _ => {
                let (value, after) = rest[1..].split_at(rest[0].into());
                into.entry(*code).or_default().extend(value);
                bytes = after;
            }
        }
    }
}

/// Sends a message from `eth0`, and gives the answer to it.
fn exchange(kind: u8, mac: Mac, own: Option<Ipv4Addr>, to: Ipv4Addr, more: &[u8], wanted: &[u8]) -> Option<Told> {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut message = vec![1, 1, 6, 0];
    message.extend(number);
    // Without an address, only what is sent to all arrives.
    message.extend([0, 0, if own.is_none() { 0x80 } else { 0 }, 0]);
    message.extend(own.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    message.resize(28, 0);
    message.extend(mac.0);
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind, 57, 2, 5, 0xdc]);
    message.extend(more);
    message.extend([55, u8::try_from(wanted.len()).expect("few")]);
    message.extend(wanted);
    message.push(255);
    message.resize(message.len().max(300), 0);

    let socket = bound();
    setsockopt(&socket, BindToDevice, &"eth0".into()).expect("device");
    socket.set_broadcast(true).expect("broadcast");
    socket.send_to(&message, (to, 67)).expect("sent");
    let deadline = Instant::now() + PATIENCE;
    let mut answer = [0; 2048];
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|it| !it.is_zero()) {
        socket.set_read_timeout(Some(left)).expect("time limit");
        match socket.recv(&mut answer) {
            Ok(length) if length > 240 && answer[4..8] == number => return Some(Told::read(&answer[..length])),
            _ => {}
        }
    }
    None
}

/// A program that another test starts right now may have the last socket for a moment.
fn bound() -> UdpSocket {
    for _ in 0..100 {
        match UdpSocket::bind("0.0.0.0:68") {
            Err(error) if error.kind() == ErrorKind::AddrInUse => thread::sleep(Duration::from_millis(10)),
            other => return other.expect("socket"),
        }
    }
    panic!("another client has the port");
}

/// Asks for an address and takes it: four messages. What the last one says; none where nobody answers.
pub fn lease(mac: Mac, wanted: &[u8]) -> Option<Told> {
    let offer = exchange(DISCOVER, mac, None, Ipv4Addr::BROADCAST, &[], wanted)?;
    let mut more = vec![50, 4];
    more.extend(offer.address.octets());
    more.extend([54, 4]);
    more.extend(offer.bytes(54).expect("a server"));
    exchange(REQUEST, mac, None, Ipv4Addr::BROADCAST, &more, wanted)
}

/// Renews the lease of an address that the guest has.
pub fn renew(mac: Mac, own: Ipv4Addr, server: Ipv4Addr, wanted: &[u8]) -> Option<Told> {
    exchange(REQUEST, mac, Some(own), server, &[], wanted)
}

/// The name under which an address is looked up backwards.
pub fn reverse(address: &str) -> String {
    match address.parse().expect("address") {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let digits = address.octets().into_iter().rev().map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4));
            digits.collect::<String>() + "ip6.arpa"
        }
    }
}

const KINDS: [(&str, u16); 6] = [("A", 1), ("CNAME", 5), ("PTR", 12), ("TXT", 16), ("AAAA", 28), ("SRV", 33)];

/// Asks a DNS server (RFC 1035, 4). Each answer as its type and its value, sorted; or the word for why there is none.
pub fn lookup(server: IpAddr, kind: &str, name: &str) -> Vec<String> {
    let code = KINDS.iter().find(|it| it.0 == kind).expect("known type").1;
    let mut message = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("short"));
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(code.to_be_bytes());
    message.extend([0, 1]);
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).expect("socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("time limit");
    socket.send_to(&message, (server, 53)).expect("sent");
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).expect("the DNS answers");
    read_answer(&answer[..length])
}

fn read_answer(message: &[u8]) -> Vec<String> {
    let short = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    match message[3] & 15 {
        0 => {}
        3 => return vec!["NXDOMAIN".into()],
        code => return vec![format!("error {code}")],
    }
    let mut at = 12;
    name_at(message, &mut at);
    at += 4;
    let mut answers = Vec::new();
    for _ in 0..short(6) {
        name_at(message, &mut at);
        let (code, length) = (short(at), usize::from(short(at + 8)));
        at += 10;
        let value = &message[at..at + length];
        let kind = KINDS.iter().find(|it| it.1 == code).map_or("?", |it| it.0);
        let text = match kind {
            "A" => Ipv4Addr::from(<[u8; 4]>::try_from(value).expect("address")).to_string(),
            "AAAA" => Ipv6Addr::from(<[u8; 16]>::try_from(value).expect("address")).to_string(),
            "CNAME" | "PTR" => name_at(message, &mut at.clone()),
            "SRV" => {
                let target = name_at(message, &mut (at + 6));
                format!("{} {} {} {target}", short(at), short(at + 2), short(at + 4))
            }
            "TXT" => {
                assert_eq!(usize::from(value[0]) + 1, length, "one string");
                String::from_utf8_lossy(&value[1..]).into_owned()
            }
            _ => String::new(),
        };
        answers.push(format!("{kind} {text}"));
        at += length;
    }
    answers.sort();
    answers
}

fn name_at(message: &[u8], at: &mut usize) -> String {
    let mut labels: Vec<String> = Vec::new();
    loop {
        let length = usize::from(message[*at]);
        *at += 1;
        match length {
            0 => return labels.join("."),
            1..64 => {
                labels.push(String::from_utf8_lossy(&message[*at..*at + length]).into_owned());
                *at += length;
            }
            _ => {
                let mut there = (length & 63) << 8 | usize::from(message[*at]);
                *at += 1;
                labels.push(name_at(message, &mut there));
                return labels.join(".");
            }
        }
    }
}
