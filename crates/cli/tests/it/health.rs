//! `hookwire health` against a real service.

use std::time::Duration;

use hookwire_proto::signature::AccessKey;
use hookwire_server::config::Config;
use hookwire_server::node::Node;
use tokio::process::Command;

const DEADLINE: Duration = Duration::from_secs(30);

/// Returns whether all is well, and what the command says.
async fn health(url: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookwire"));
    let output = command.args(["health", url]).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn health_tells_readiness_by_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let key = AccessKey::parse("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH").unwrap();
    let mut config = Config::for_one_machine("127.0.0.1:0".parse().unwrap(), key, folder.path());
    config.limits.shutdown_notice = Duration::from_secs(3);
    let node = Node::start(config).await.unwrap();
    let url = format!("{}health/ready", node.endpoint());
    let ready = async {
        loop {
            let (is_well, said) = health(&url).await;
            if is_well {
                break said;
            }
        }
    };
    let said = tokio::time::timeout(DEADLINE, ready).await.unwrap();
    assert_eq!(said, "200 {\"status\":\"ready\"}\n");
    let stopping = tokio::spawn(node.shutdown());
    let unready = async {
        loop {
            let (is_well, said) = health(&url).await;
            if !is_well {
                break said;
            }
        }
    };
    let said = tokio::time::timeout(DEADLINE, unready).await.unwrap();
    assert_eq!(said, "503 {\"status\":\"shutting down\"}\n");
    assert!(stopping.await.unwrap());
    let (is_well, said) = health(&url).await;
    assert!(!is_well && said.contains("no answer"), "{said}");
    let (is_well, said) = health("https://127.0.0.1/").await;
    assert!(!is_well && said.contains("http://"), "{said}");
}
