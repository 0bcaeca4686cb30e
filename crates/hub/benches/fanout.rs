//! Instruction counts of the hub's decisions: routing, membership, coming and going.
//!
//! `cargo xtask counts` runs it, and compares.

#![expect(missing_docs, reason = "the macros make public items without documentation")]

use std::hint::black_box;

use gungraun::prelude::*;
use hookwire_hub::{
    ClientContext, Command, Connecting, DoorRequest, Effect, Hub, Input, Slot, Ticket,
};
use hookwire_proto::envelope::{Content, Envelope, Shape, Target};
use hookwire_proto::message::Message;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, UserId};

/// Any time.
const NOW: u64 = 1_600_000_000_000;

/// A hub with connections, and room for effects.
struct Room {
    hub: Hub,
    effects: Vec<Effect>,
}

fn chat() -> HubName {
    HubName::parse("chat").expect("it is a hub's name")
}

fn group() -> GroupName {
    GroupName::parse("everybody").expect("it is a group's name")
}

fn id(number: u32) -> ConnectionId {
    let mut random = [0; 16];
    random[..4].copy_from_slice(&number.to_be_bytes());
    ConnectionId::new(1, 0, random)
}

fn connecting(number: u32) -> Input {
    Input::Connecting {
        answer_to: Ticket(u64::from(number)),
        connecting: Box::new(Connecting {
            id: id(number),
            hub: chat(),
            user: Some(UserId::parse(&format!("user-{number}")).expect("it is a user id")),
            deflate: None,
            subprotocols: Vec::new(),
            door: DoorRequest::Preview {
                shape: Shape::AsSent,
                context: ClientContext::new("", "", "127.0.0.1"),
            },
        }),
    }
}

fn join(number: u32) -> Input {
    let command =
        Command::AddConnectionToGroup { hub: chat(), connection: id(number), group: group() };
    Input::Command { answer_to: Ticket(0), command }
}

fn leave(number: u32) -> Input {
    let command =
        Command::RemoveConnectionFromGroup { hub: chat(), connection: id(number), group: group() };
    Input::Command { answer_to: Ticket(0), command }
}

fn send(target: Target) -> Input {
    let content = Content::new(Message::text("x".repeat(128)));
    Input::Remote(Envelope::new(chat(), target, content))
}

/// A room in which `members` of the connections `0..connections` are in the group.
fn room(connections: u32, members: u32) -> Room {
    let mut room = Room { hub: Hub::default(), effects: Vec::with_capacity(16) };
    for number in 0..connections {
        room.hub.handle(NOW, connecting(number), &mut room.effects);
        if number < members {
            room.hub.handle(NOW, join(number), &mut room.effects);
        }
        room.effects.clear();
    }
    room
}

fn with(inputs: [Input; 2]) -> (Room, [Input; 2]) {
    (room(1_000, 999), inputs)
}

fn to(target: Target) -> (Room, Input) {
    (room(1_000, 1_000), send(target))
}

// Effects only: what walking the members and writing to them takes is the shard's.
#[library_benchmark(setup = to)]
#[bench::to_a_group_of_1000(Target::Group(group()))]
#[bench::to_the_hub(Target::Hub)]
#[bench::to_a_user(Target::User(UserId::parse("user-7").expect("it is a user id")))]
#[bench::to_a_connection(Target::Connection(id(7)))]
fn route((mut room, input): (Room, Input)) -> Room {
    room.hub.handle(NOW, black_box(input), &mut room.effects);
    assert_eq!(room.effects.len(), 1, "a delivery is one effect, whatever the number of members");
    black_box(room)
}

// Walks the members of a delivery as the shard does.
#[library_benchmark(setup = to)]
#[bench::a_group_of_1000(Target::Group(group()))]
fn walk((mut room, input): (Room, Input)) -> (Room, u64) {
    room.hub.handle(NOW, black_box(input), &mut room.effects);
    let mut sum = 0;
    for effect in &room.effects {
        if let Effect::Deliver { set, form, .. } = effect {
            sum += room.hub.members(*set, *form).iter().map(|slot| u64::from(slot.0)).sum::<u64>();
        }
    }
    black_box((room, sum))
}

#[library_benchmark(setup = with)]
#[bench::join_and_leave_a_group_of_1000([join(999), leave(999)])]
#[bench::connect_and_disconnect([connecting(1_000), Input::Released { slot: Slot(1_000) }])]
fn come_and_go((mut room, inputs): (Room, [Input; 2])) -> Room {
    for input in inputs {
        room.hub.handle(NOW, black_box(input), &mut room.effects);
    }
    black_box(room)
}

library_benchmark_group!(name = hub, benchmarks = [route, walk, come_and_go]);
main!(library_benchmark_groups = hub);
