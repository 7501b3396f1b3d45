//! Ports for daemons under test.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::TcpSocket;

/// A port that nobody else has as long as this lives. It is bound at every address of this machine, and nothing listens
/// there: so the kernel gives it to nobody who asks for any port, nor to an outgoing connection, while a daemon that
/// is told its number can listen (both allow reuse), and again after it was killed.
pub struct Port(TcpSocket);

impl Port {
    pub fn reserve() -> Self {
        let everywhere = || {
            let socket = TcpSocket::new_v6()?;
            set_ipv6_v6only(&socket, false)?;
            reserved(socket, (Ipv6Addr::UNSPECIFIED, 0).into())
        };
        // A machine may be without IPv6.
        let socket = everywhere()
            .or_else(|_| reserved(TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, 0).into()))
            .expect("there is a free port");
        Self(socket)
    }

    pub fn number(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }
}

fn reserved(socket: TcpSocket, address: SocketAddr) -> std::io::Result<TcpSocket> {
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
