//! Connections of a simulated network that can be cut: all that end at one array, when its power goes, or one at a time;
//! and those between two arrays each way by itself. Over turmoil's TCP.

mod line;
mod ways;
mod wires;

pub use line::Line;
pub use ways::Trouble;
pub use wires::{End, Wires};

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use turmoil::net::{TcpListener, TcpStream};

    use super::*;
    use crate::disk::Power;
    use crate::site::Site;
    use crate::timeline::Timeline;

    /// A server that says "hello" again and again; what a client gets when, after some time, `cut` happens.
    fn received(cut: impl Fn(&Wires)) -> (usize, bool) {
        received_by(End::Array(Site::A), End::Host, cut)
    }

    fn received_by(server: End, client: End, cut: impl Fn(&Wires)) -> (usize, bool) {
        let wires = Wires::new([Power::on(), Power::on()], 3, 1, Timeline::new(false));
        let mut sim = turmoil::Builder::new()
            .rng_seed(1)
            .simulation_duration(Duration::from_secs(5))
            .tcp_capacity(1 << 16)
            .build();
        let at_server = wires.clone();
        sim.host("array", move || {
            let wires = at_server.clone();
            async move {
                let listener = TcpListener::bind("0.0.0.0:1").await?;
                let mut line = wires.attach(listener.accept().await?.0, server);
                while line.write_all(b"hello").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                drop(line);
                std::future::pending().await
            }
        });
        let got = Rc::new(Cell::new((0, false)));
        let (seen, at_client) = (got.clone(), wires.clone());
        sim.client("host0", async move {
            let mut line = at_client.attach(TcpStream::connect("array:1").await?, client);
            let mut bytes = [0; 100];
            loop {
                match line.read(&mut bytes).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => seen.set((seen.get().0 + n, false)),
                }
            }
            seen.set((seen.get().0, true));
            Ok(())
        });
        for step in 0..1000 {
            if step == 500 {
                cut(&wires);
            }
            sim.step().unwrap();
            wires.end_troubles(step, false);
        }
        got.get()
    }

    #[test]
    fn chopped_bytes_arrive_and_a_silent_array_sends_nothing() {
        let (all, over) = received(|_| {});
        assert!(all > 100 && !over, "{all}");
        let (some, over) = received(|wires| wires.silence(Site::A));
        assert!(some < all && !over, "no end is seen, only silence");
    }

    #[test]
    fn a_broken_connection_is_noticed() {
        let (_, over) = received(|wires| assert!(wires.drop_connections(None) > 0));
        assert!(over);
    }

    /// What the second array gets of what the first sends.
    fn linked(cut: impl Fn(&Wires)) -> (usize, bool) {
        received_by(End::Link(Site::A), End::Link(Site::B), cut)
    }

    #[test]
    fn what_is_held_comes_later_and_what_is_cut_never() {
        let (all, _) = linked(|_| {});
        let (waited, over) = linked(|wires| wires.trouble(Site::A, Trouble::Held { until_ms: 900 }));
        assert!(waited + 20 > all && !over, "{waited} of {all}");
        let (lost, over) = linked(|wires| wires.trouble(Site::A, Trouble::Cut { until_ms: 600 }));
        assert!(lost < all && !over, "{lost} of {all}, and silence");
        let (heard, _) = linked(|wires| wires.trouble(Site::B, Trouble::Cut { until_ms: 600 }));
        assert!(heard + 20 > all, "{heard} of {all}: only the other way is cut");
        let (late, _) = linked(|wires| wires.trouble(Site::A, Trouble::Slow { until_ms: 2000, by_ms: 100 }));
        assert!(late < all && late > lost, "{late} of {all}");
    }

    #[test]
    fn a_link_breaks_at_any_byte() {
        let (before, _) = linked(|wires| wires.trouble(Site::A, Trouble::Cut { until_ms: 600 }));
        let (got, over) = linked(|wires| wires.trouble(Site::A, Trouble::Reset { after_bytes: 7 }));
        assert!(over && got >= before && got <= before + 60, "{got}, {before}");
    }
}
