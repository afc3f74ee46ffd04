//! Every section and key of `smp-server.ini`: its name, its default, and what an operator is told about it.
//!
//! One table serves for reading (what is not in it is an error) and for writing the file that `init` makes, so the two
//! cannot disagree.

/// One key of the file.
pub(super) struct Key {
    /// The section, without brackets.
    pub(super) section: &'static str,
    /// The key.
    pub(super) name: &'static str,
    /// The value that holds when the key is absent, in the file's own notation; empty for "none".
    pub(super) default: &'static str,
    /// What it does, in lines short enough to be read in a terminal.
    pub(super) comment: &'static str,
}

const fn key(section: &'static str, name: &'static str, default: &'static str, comment: &'static str) -> Key {
    Key { section, name, default, comment }
}

/// What each section is about.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    ("STORE_LOG", "What is kept, and for how long."),
    ("STORAGE", "How queues and messages are written to disk."),
    ("AUTH", "Who may create queues."),
    ("TRANSPORT", "Where the relay listens, and under which names clients know it."),
    ("PROXY", "Forwarding for clients that do not want other relays to see their addresses."),
    (
        "FIRST_STEP",
        "Holding messages for relays that cannot be reached, and taking those that other relays held (smp-proxy/1).",
    ),
    ("INACTIVE_CLIENTS", "Clients that are connected and do nothing."),
    ("LIMITS", "How much the relay gives, in total and to one client."),
    ("THREADS", "How much of the machine the relay uses."),
];

/// Every key, in the order of the file.
pub(super) const KEYS: &[Key] = &[
    key(
        "STORE_LOG",
        "enable",
        "on",
        "Keep queues over a restart. This relay always does: only `on` is allowed.",
    ),
    key(
        "STORE_LOG",
        "restore_messages",
        "on",
        "Keep waiting messages over a restart. This relay always does: only `on` is allowed.",
    ),
    key(
        "STORE_LOG",
        "expire_messages_days",
        "21",
        "Days after which a message that nobody fetched is deleted: 1 to 3650.",
    ),
    key(
        "STORE_LOG",
        "expire_ntfs_hours",
        "24",
        "Hours after which a notification that nobody fetched is forgotten: 1 to 720.",
    ),
    key(
        "STORE_LOG",
        "expire_unused_invitations_days",
        "180",
        "Days after which a queue between two that nobody has secured is deleted, with the link data behind its one-time\n\
         link: an invitation that was never used. 1 to 3650, or 0: never. Contact addresses never expire.",
    ),
    key(
        "STORE_LOG",
        "expire_blobs_days",
        "365",
        "Days after which a blob that its owner does not write again is deleted: 1 to 3650, or 0: never.",
    ),
    key("STORE_LOG", "log_stats", "off", "Not supported: only `off` is allowed."),
    key(
        "STORAGE",
        "durability",
        "commit",
        "`commit`: a message is confirmed to its sender when it is safely on disk; nothing confirmed is ever lost.\n\
         `relaxed`: it is confirmed when it is written, and made safe a little later: faster on slow disks, and a crash or\n\
         power failure may lose the last moments.",
    ),
    key(
        "STORAGE",
        "relaxed_window_milliseconds",
        "200",
        "How much time a crash or power failure may cost with `durability: relaxed`: 10 to 60000.",
    ),
    key(
        "AUTH",
        "new_queues",
        "on",
        "`off`: nobody may create queues; existing ones go on. For a relay that is being retired.",
    ),
    key(
        "AUTH",
        "create_password",
        "",
        "Clients need this password to create queues (not to send to them). It is part of the address that you share with\n\
         those who may: smp://FINGERPRINT:PASSWORD@HOST. Printable characters except space, `@`, `:` and `/`.\n\
         Without this key everybody may.",
    ),
    key(
        "TRANSPORT",
        "host",
        "",
        "The names or addresses under which clients reach the relay, separated by commas: a domain name, an IP address,\n\
         an onion name. Used only in the address that is printed; the relay itself does not look at names.",
    ),
    key(
        "TRANSPORT",
        "port",
        "5223",
        "The ports to listen on, separated by commas (5223,443 serves clients behind strict firewalls too). 0 takes a free\n\
         port, which is printed at start.",
    ),
    key(
        "TRANSPORT",
        "listen",
        "::,0.0.0.0",
        "The addresses of this machine to listen on, separated by commas: IPv4 or IPv6. `::` and `0.0.0.0` mean all.",
    ),
    key(
        "TRANSPORT",
        "log_tls_errors",
        "off",
        "Failed handshakes are counted and never logged: only `off` is allowed.",
    ),
    key("TRANSPORT", "websockets", "off", "Not supported: only `off` is allowed."),
    key(
        "PROXY",
        "enable",
        "on",
        "`off`: this relay forwards nothing. Otherwise whoever may create queues may have commands forwarded.",
    ),
    key(
        "PROXY",
        "host_mode",
        "public",
        "Which host is used of a relay that has several: `public`, or `onion` (with socks_proxy).",
    ),
    key(
        "PROXY",
        "required_host_mode",
        "off",
        "`on`: only hosts of that kind are used, and relays without one cannot be reached.",
    ),
    key(
        "PROXY",
        "own_server_domains",
        "",
        "The domains of relays that you operate, separated by spaces: forwarding to them is counted apart.",
    ),
    key(
        "PROXY",
        "socks_proxy",
        "",
        "The SOCKS5 proxy through which relays are reached, as HOST:PORT (localhost:9050 for Tor). It resolves their names.",
    ),
    key(
        "PROXY",
        "socks_mode",
        "onion",
        "`onion`: only onion hosts are reached through the SOCKS proxy; `always`: all are.",
    ),
    key(
        "PROXY",
        "client_concurrency",
        "32",
        "Commands of one client that are forwarded at the same time: 1 to 1000. Further ones wait.",
    ),
    key(
        "PROXY",
        "private_destinations",
        "off",
        "`on`: relays on private and loopback addresses may be reached, too. A client could then use this relay as a way\n\
         into your network: only for relays that nobody else can reach.",
    ),
    key(
        "PROXY",
        "destinations",
        "10000",
        "Relays to which there are connections, at the same time: 1 to 1000000.",
    ),
    key("PROXY", "dials", "256", "Relays that are connected to at the same time: 1 to 10000."),
    key(
        "PROXY",
        "connect_seconds",
        "30",
        "How long connecting to a relay may take, with its handshakes: 1 to 600.",
    ),
    key("PROXY", "command_seconds", "30", "How long a relay may take to answer a command: 1 to 600."),
    key(
        "PROXY",
        "idle_seconds",
        "1800",
        "After how many seconds without commands a connection to a relay is closed: 10 to 31536000.",
    ),
    key(
        "FIRST_STEP",
        "hold",
        "on",
        "Hold messages for clients until their relays take them: `on` or `off`. Where a password is needed to create queues, it\n\
         is needed for this, too. How other relays are reached is set in [PROXY].",
    ),
    key(
        "FIRST_STEP",
        "accept",
        "on",
        "Take messages that other relays held: `on` or `off`. They see neither the queues nor the messages.",
    ),
    key(
        "FIRST_STEP",
        "held_per_client",
        "256",
        "Messages and answers of 16 KB that are held for one client: 1 to 100000.",
    ),
    key(
        "FIRST_STEP",
        "held_per_destination",
        "100000",
        "Messages that are held for one relay: 1 to 100000000.",
    ),
    key("FIRST_STEP", "held", "1000000", "Messages and answers that are held in all: 1 to 100000000."),
    key(
        "FIRST_STEP",
        "longest_hold_hours",
        "504",
        "After how many hours a message is given up, whatever its client wants: 1 to 2160.",
    ),
    key(
        "FIRST_STEP",
        "longest_delay_seconds",
        "600",
        "The longest wait before a relay that cannot be reached is tried again: 1 to 86400. The first is two seconds, and\n\
         each is twice the one before.",
    ),
    key(
        "FIRST_STEP",
        "key_rotation_hours",
        "24",
        "After how many hours another key is made for messages that other relays hold: 1 to 720. Messages under a key are\n\
         taken for twice as long; then what they were encrypted with is destroyed.",
    ),
    key(
        "INACTIVE_CLIENTS",
        "disconnect",
        "on",
        "Disconnect clients without subscriptions that are silent: `on` or `off`.",
    ),
    key("INACTIVE_CLIENTS", "ttl", "21600", "After how many seconds of silence: 60 to 31536000."),
    key(
        "INACTIVE_CLIENTS",
        "check_interval",
        "3600",
        "Accepted so that files written for other relays can be used. Each connection has its own deadline here, so there is\n\
         no interval.",
    ),
    key(
        "LIMITS",
        "connections",
        "100000",
        "Connections at the same time: 1 to 10000000. Also bounded by the number of files that the system lets the relay\n\
         open.",
    ),
    key(
        "LIMITS",
        "connections_per_address",
        "1000",
        "Connections at the same time from one IPv4 address or one IPv6 network (/64): 1 to 10000000.",
    ),
    key(
        "LIMITS",
        "uncounted_addresses",
        "127.0.0.1,::1",
        "Addresses to which connections_per_address does not apply, separated by commas: those through which many clients\n\
         come, such as an onion service or a proxy on this machine. May be empty.",
    ),
    key(
        "LIMITS",
        "blobs",
        "100000",
        "Blobs (encrypted values behind links, an extension) on the relay, of 16 KB each: 0 to 10000000. With 0, and where a\n\
         password is needed to create queues, no new ones are taken.",
    ),
    key(
        "LIMITS",
        "blob_bytes",
        "16141",
        "The longest blob in bytes: 1 to 16141. Clients write all blobs with 16141.",
    ),
    key(
        "LIMITS",
        "blob_writes_of_connection",
        "60",
        "Blobs that one connection may write in a minute: 1 to 65535.",
    ),
    key(
        "LIMITS",
        "blob_writes",
        "6000",
        "Blobs that all clients together may write in a minute: 1 to 1000000000.",
    ),
    key(
        "LIMITS",
        "handshakes",
        "5000",
        "Connections that have not finished their handshake, at the same time: 1 to 1000000. The oldest has to go when\n\
         there are more.",
    ),
    key(
        "LIMITS",
        "tls_handshake_seconds",
        "60",
        "How long a client may take for the TLS handshake: 1 to 600.",
    ),
    key(
        "LIMITS",
        "smp_handshake_seconds",
        "120",
        "How long it may take for the SMP handshake after that: 1 to 600.",
    ),
    key(
        "LIMITS",
        "slow_reader_seconds",
        "60",
        "A client that does not take what is sent to it is dropped after this many seconds: 1 to 3600.",
    ),
    key(
        "LIMITS",
        "outgoing_blocks",
        "8",
        "Blocks of 16 KiB that wait to be sent to one client, at most: 1 to 1024. The rest waits in storage.",
    ),
    key(
        "LIMITS",
        "commands_in_flight",
        "320",
        "Commands of one client that wait for storage at the same time: 255 to 65535. One block has up to 255, so another\n\
         block is read while fewer than this number less 255 wait. A waiting message takes 16 KiB.",
    ),
    key("LIMITS", "queues", "10000000", "Queues on this relay: 1 to 1000000000."),
    key("LIMITS", "message_quota", "128", "Messages that wait in one queue: 1 to 16384."),
    key("THREADS", "threads", "0", "Threads that serve connections: 0 to 1024. 0 is one for each core."),
];

/// Sections that other relays' files have and this relay has no use for; named in the error.
pub(super) const FOREIGN_SECTIONS: &[&str] = &["WEB", "INFORMATION", "NAMES"];
