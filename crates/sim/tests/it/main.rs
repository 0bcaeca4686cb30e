//! Random histories over several shards, compared with the model.

mod recovery;

use hookwire_proto::envelope::Shape;
use hookwire_sim::{Model, Receiver, Step, World};
use proptest::collection::vec;
use proptest::prelude::*;

fn step() -> impl Strategy<Value = Step> {
    let (connection, user, group, shard) = (0_usize..24, 0_usize..4, 0_usize..4, 0_usize..3);
    let form = prop_oneof![Just(Shape::AsSent), Just(Shape::Text), Just(Shape::Binary)];
    prop_oneof![
        4 => (user.clone(), shard.clone(), form)
            .prop_map(|(user, shard, shape)| Step::Connect { user, shard, shape }),
        2 => connection.clone().prop_map(|connection| Step::End { connection }),
        1 => connection.clone().prop_map(|connection| Step::Close { connection }),
        3 => (connection.clone(), group.clone())
            .prop_map(|(connection, group)| Step::Join { connection, group }),
        2 => (connection.clone(), group.clone())
            .prop_map(|(connection, group)| Step::Leave { connection, group }),
        2 => (user.clone(), group.clone(), proptest::option::of(1_u64..100))
            .prop_map(|(user, group, ttl)| Step::JoinAsUser { user, group, ttl }),
        1 => (user.clone(), proptest::option::of(group.clone()))
            .prop_map(|(user, group)| Step::LeaveAsUser { user, group }),
        2 => Just(Step::Send(Receiver::Hub)),
        4 => group.prop_map(|group| Step::Send(Receiver::Group(group))),
        2 => user.prop_map(|user| Step::Send(Receiver::User(user))),
        2 => connection.clone().prop_map(|connection| Step::Send(Receiver::Connection(connection))),
        6 => connection.prop_map(|connection| Step::Request { connection }),
        3 => shard.clone().prop_map(|shard| Step::Reply { shard }),
        3 => shard.prop_map(|shard| Step::Pass { shard }),
        1 => (1_u64..60).prop_map(|time| Step::Wait { time }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Every message reaches exactly its members, in the order sent; every admitted connection has one connect event, then its
    /// messages, then one disconnect event; in the end nothing is left.
    #[test]
    fn any_history_over_several_shards_agrees_with_the_model(
        shards in 1_usize..4, steps in vec(step(), 0..200)
    ) {
        let (mut world, mut model) = (World::new(shards), Model::default());
        for step in &steps {
            world.step(step, &mut model);
        }
        prop_assert_eq!(&world.received().messages, model.received());
        world.finish(&mut model);
        prop_assert_eq!(world.received().events.len(), world.connections());
        for events in world.received().events.values() {
            prop_assert_eq!(events.first(), Some(&"connect"));
            prop_assert_eq!(events.last(), Some(&"disconnect"));
            let inner = &events[1..events.len() - 1];
            prop_assert!(inner.iter().all(|event| *event == "message"), "{:?}", events);
        }
        prop_assert_eq!(model.ended().len(), world.connections());
        prop_assert!(world.is_empty());
    }
}
