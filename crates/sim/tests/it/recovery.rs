//! Random histories of cuts and recoveries.

use hookwire_sim::{Act, Recovery};
use proptest::collection::vec;
use proptest::prelude::*;

fn act() -> impl Strategy<Value = Act> {
    let client = 0_usize..6;
    let status = prop_oneof![Just(None), Just(Some(1_000)), Just(Some(1_001))];
    prop_oneof![
        1 => (0_usize..3, any::<bool>())
            .prop_map(|(shard, is_protobuf)| Act::Connect { shard, is_protobuf }),
        6 => Just(Act::Publish),
        5 => (client.clone(), 1_usize..8)
            .prop_map(|(client, messages)| Act::Read { client, messages }),
        4 => client.clone().prop_map(|client| Act::Acknowledge { client }),
        3 => client.clone().prop_map(|client| Act::Cut { client }),
        1 => (client.clone(), status).prop_map(|(client, status)| Act::Close { client, status }),
        4 => client.prop_map(|client| Act::Recover { client }),
        2 => prop_oneof![1_u64..4_000, 20_000_u64..31_000].prop_map(|time| Act::Wait { time }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whoever comes back in time has every message once and in order, whatever was lost on the way; whoever does not is refused, and
    /// every connection has one disconnected event in the end.
    #[test]
    fn cuts_lose_nothing_for_who_comes_back_in_time(
        shards in 1_usize..4, acts in vec(act(), 0..200)
    ) {
        let mut world = Recovery::new(shards);
        for act in &acts {
            world.act(act);
        }
        world.finish();
    }
}
