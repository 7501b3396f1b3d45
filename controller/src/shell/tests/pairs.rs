//! Two whole arrays with a link between them.

use twintrack_link::manage::{
    Answer, Command, LinkInfo, LinkInfoState, NewDevice, PairHalf, PairMode, PairPolicy, PairStatusInfo,
    RemoteInfo,
};

use super::*;

/// Until what is to come has to have come: simulated time.
const PATIENCE: Duration = Duration::from_secs(60);

/// One of the arrays.
pub(super) struct Site {
    pub(super) name: &'static str,
    pub(super) net: Pipes,
    pub(super) shelf: Shelf,
    pub(super) env: Counter,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Site {
    pub(super) async fn start(net: &Pipes, name: &'static str, shelf: Shelf, env: Counter) -> Self {
        let at = |what: &str| endpoint(&format!("{name}-{what}"));
        let policy = PoolPolicy::default();
        let config = Config {
            nbd: vec![at("nbd")],
            control: vec![at("control")],
            link: vec![at("link")],
            control_token: None,
            pools: vec![PoolConfig { name: "main".into(), stores: vec!["a".into()], policy }],
            track_bytes: 1 << 16,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let served = tokio::spawn(serve(net.clone(), shelf.clone(), env.clone(), config, shutdown));
        tokio::time::sleep(Duration::from_millis(1)).await;
        Self { name, net: net.clone(), shelf, env, stop, served }
    }

    /// As by a power cut that loses nothing.
    async fn restart(self) -> Self {
        self.served.abort();
        assert!(self.served.await.unwrap_err().is_cancelled());
        Self::start(&self.net, self.name, self.shelf, self.env).await
    }

    pub(super) async fn call(&self, command: Command) -> Answer {
        let control = endpoint(&format!("{}-control", self.name));
        ArrayClient::new(self.net.clone(), control).call(&command).await.unwrap()
    }

    pub(super) async fn link(&self) -> LinkInfo {
        let Answer::Links(links) = self.call(Command::LinkList {}).await else { panic!("no links") };
        links.into_iter().next().unwrap()
    }

    async fn pair(&self) -> RemoteInfo {
        match self.call(Command::RemoteShow { device: "db".into() }).await {
            Answer::Remote(info) => *info,
            other => panic!("{other:?}"),
        }
    }

    async fn until(&self, status: PairStatusInfo) {
        let begun = tokio::time::Instant::now();
        while self.pair().await.status != status {
            assert!(begun.elapsed() < PATIENCE, "{}: {:?}", self.name, self.pair().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn until_linked(&self) {
        let begun = tokio::time::Instant::now();
        while self.link().await.state != LinkInfoState::Up {
            assert!(begun.elapsed() < PATIENCE, "{}: {:?}", self.name, self.link().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn attach(&self) -> NbdClient {
        let stream = self.net.connect(&endpoint(&format!("{}-nbd", self.name)));
        NbdClient::connect(stream, "db", &NbdOptions::default()).await.unwrap()
    }

    pub(super) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

/// Both arrays, each of which has added the other, and a pair of 4 MiB with something in it.
async fn pair() -> [Site; 2] {
    let (net, env) = (Pipes::default(), Counter::default());
    let west = Site::start(&net, "west", shelf(), env.clone()).await;
    let east = Site::start(&net, "east", shelf(), env).await;
    for (site, other) in [(&west, "east"), (&east, "west")] {
        let endpoint = Some(format!("unix:{other}-link"));
        site.call(Command::LinkAdd { name: other.into(), endpoint, serial: None }).await;
    }
    west.until_linked().await;
    east.until_linked().await;
    let create = Command::DeviceCreate { name: "db".into(), size_bytes: 4 << 20, pool: Some("main".into()) };
    west.call(create).await;
    let host = west.attach().await;
    host.write(0, vec![1; 1 << 20].into(), false).await.unwrap();
    host.disconnect().await;
    west.call(Command::RemoteCreate {
        request: 1,
        device: "db".into(),
        peer: "east".into(),
        peer_device: "db".into(),
        half: PairHalf::R1,
        from: PairHalf::R1,
        create_local: None,
        create_peer: Some(NewDevice { pool: None, size_bytes: 4 << 20 }),
        mode: PairMode::Synchronous,
        policy: PairPolicy::Continue,
        group: None,
    })
    .await;
    west.until(PairStatusInfo::Synchronized).await;
    [west, east]
}

fn failover() -> Command {
    Command::RemoteFailover { device: "db".into(), force: false }
}

/// Two arrays that add each other become known to each other, whoever dials first; one link stays.
#[tokio::test(start_paused = true)]
async fn two_that_add_each_other_have_one_link() {
    let [west, east] = pair().await;
    let Answer::LinkTest(test) =
        west.call(Command::LinkTest { name: "east".into(), size_bytes: 8 << 20 }).await
    else {
        panic!("no test");
    };
    assert_eq!(test.size_bytes, 8 << 20);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!([west.link().await.state, east.link().await.state], [LinkInfoState::Up; 2]);
    west.stop().await;
    east.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_one_array_has_the_other_has() {
    let [west, east] = pair().await;
    let host = west.attach().await;
    let writes = (0..32u64).map(|n| host.write(n * 65536 + 4096, vec![n as u8 + 2; 65536].into(), false));
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    host.flush().await.unwrap();
    let content = host.read(0, 4 << 20).await.unwrap();
    host.disconnect().await;

    east.call(failover()).await;
    let host = east.attach().await;
    assert!(host.read(0, 4 << 20).await.unwrap() == content);
    host.write(512, vec![99; 512].into(), true).await.unwrap();
    host.disconnect().await;
    east.until(PairStatusInfo::R1Updated).await;

    west.call(failover()).await;
    let host = west.attach().await;
    assert_eq!(host.read(512, 512).await.unwrap(), vec![99; 512]);
    host.disconnect().await;
    west.until(PairStatusInfo::Synchronized).await;
    west.stop().await;
    east.stop().await;
}

/// Either array is killed while its host writes; what was missed follows when it is back.
#[tokio::test(start_paused = true)]
async fn an_array_that_was_away_gets_what_it_missed() {
    let [west, east] = pair().await;
    let east = east.restart().await;
    let host = west.attach().await;
    host.write(2 << 20, vec![7; 1 << 20].into(), true).await.unwrap();
    host.disconnect().await;
    west.until_linked().await;
    west.until(PairStatusInfo::Synchronized).await;

    let west = west.restart().await;
    west.until_linked().await;
    west.until(PairStatusInfo::Synchronized).await;
    east.call(failover()).await;
    let host = east.attach().await;
    assert!(host.read(2 << 20, 1 << 20).await.unwrap() == vec![7; 1 << 20]);
    assert!(host.read(0, 1 << 20).await.unwrap() == vec![1; 1 << 20]);
    host.disconnect().await;
    west.stop().await;
    east.stop().await;
}
