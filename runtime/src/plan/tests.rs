// SPDX-License-Identifier: Apache-2.0
//! Plans by value: what a config becomes, step for step.

use serde_json::{Value, json};

use super::*;
use crate::sys::mount::attr;

const HOST: Host =
    Host { last_cap: 40, v1_hierarchies: Vec::new(), apparmor: true, in_user_namespace: false, set_groups: true };

fn plan(config: &Value, options: &Options) -> Plan {
    let spec: Spec = serde_json::from_value(config.clone()).unwrap();
    container(&spec, "id", &HOST, options).unwrap()
}

fn minimal() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "process": { "args": ["/bin/true"], "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": ["PATH=/bin"] },
        "linux": { "namespaces": [{ "type": "mount" }] }
    })
}

fn steps(plan: &Plan) -> Vec<&Step> {
    plan.program.steps.iter().map(|planned| &planned.step).collect()
}

fn at(plan: &Plan, wanted: impl Fn(&Step) -> bool) -> usize {
    plan.program.steps.iter().position(|planned| wanted(&planned.step)).expect("the step is there")
}

/// An init whose maps are written by a user is dumpable until it has its descriptors, before it meets anybody; no other is.
#[test]
fn dumpable_no_longer_than_for_the_maps() {
    let undumpable = |config: Value| {
        let host = Host { in_user_namespace: true, ..HOST };
        let spec: Spec = serde_json::from_value(config).unwrap();
        let plan = container(&spec, "id", &host, &Options::default()).unwrap();
        plan.program.steps.iter().position(|planned| planned.step == Step::Prctl { option: 4, value: 0 })
    };
    let mut mapped = minimal();
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    mapped["linux"] = json!({"namespaces": [{"type": "mount"}, {"type": "user"}, {"type": "ipc", "path": "/x"}], "uidMappings": map, "gidMappings": map});
    assert_eq!(undumpable(mapped), Some(1), "right after Receive, before SetNs");
    assert_eq!(undumpable(minimal()), None);
}

#[test]
fn the_least_config_step_for_step() {
    let plan = plan(&minimal(), &Options::default());
    let want = [
        Step::Receive,
        Step::Keyring,
        Step::Setsid,
        Step::Propagate { flags: libc::MS_REC | libc::MS_SLAVE },
        Step::AttachRoot,
        Step::Dest { slot: 8, path: "dev".into(), kind: step::Kind::Dir, flags: program::DEST_NO_SYMLINKS },
        Step::Attach { mount: 1, dest: 8 },
        Step::Pivot,
        Step::Bounding { keep: 0, last: 40 },
        Step::Chdir { path: "/".into(), turn: 1 },
        Step::Groups { gids: vec![] },
        Step::Gid { gid: 0 },
        Step::Uid { uid: 0 },
        Step::Chdir { path: "/".into(), turn: 2 },
        Step::Umask { mask: 0o022 },
        Step::Capset { effective: 0, permitted: 0, inheritable: 0 },
        Step::Ambient { set: 0 },
        Step::CheckCwd,
        Step::FindExec { candidates: vec!["/bin/true".into()] },
        Step::Ready,
        Step::CloseFds { first: 3 },
        Step::Exec { argv: vec!["/bin/true".into()], envp: vec!["PATH=/bin".into(), "HOME=/".into()], says: false },
    ];
    assert_eq!(steps(&plan), want.iter().collect::<Vec<_>>());
    assert_eq!(plan.namespaces, libc::CLONE_NEWNS as u64);
    assert_eq!(plan.sources.len(), 2);
}

#[test]
fn the_hardened_config_has_every_layer() {
    let plan = plan(&harden::config().unwrap(), &Options::default());
    let has = |wanted: &Step| steps(&plan).contains(&wanted);
    assert!(has(&Step::Unshare { flags: libc::CLONE_NEWNET as u32 }) && has(&Step::LoUp), "L1");
    assert!(plan.filter.is_some(), "L2");
    let read_only = Step::SetAttr { slot: program::ROOT, set: 1, propagation: 0, recursive: false };
    assert!(has(&read_only) && has(&Step::Pivot), "L3");
    assert!(
        has(&Step::Capset { effective: 0, permitted: 0, inheritable: 0 }) && has(&Step::Bounding { keep: 0, last: 40 }),
        "L4"
    );
    assert_eq!(
        (plan.cgroup.limits.pids, plan.cgroup.limits.memory, plan.cgroup.limits.quota),
        (Some(256), Some(512 << 20), Some(100_000)),
        "L5, L6"
    );
    assert_eq!(plan.user, UserNamespace::Allocate, "L7");
    assert!(has(&Step::Prctl { option: 38, value: 1 }), "L8");
    let Source::Root { attr: root, .. } = &plan.sources[0] else { panic!("the root comes first") };
    assert_eq!((root.idmap.clone(), root.set_all), (Idmap::Container, attr::RDONLY | attr::NODEV | attr::NOSUID));
    let userns =
        Step::Write { dir: slot_of_proc(&plan), path: "sys/user/max_user_namespaces".into(), value: "0".into() };
    assert!(has(&userns), "no further user namespaces");
}

fn slot_of_proc(plan: &Plan) -> Slot {
    let proc = plan.program.steps.iter().find_map(|planned| match &planned.step {
        Step::FsOpen { slot, kind } if kind == "proc" => Some(*slot),
        _ => None,
    });
    proc.expect("a proc is mounted")
}

#[test]
fn rights_are_given_up_in_order() {
    let plan = plan(&harden::config().unwrap(), &Options::default());
    let order = [
        at(&plan, |step| *step == Step::Receive),
        at(&plan, |step| *step == Step::BecomeRoot),
        at(&plan, |step| *step == Step::AttachRoot),
        at(&plan, |step| matches!(step, Step::SetAttr { slot: program::ROOT, .. })),
        at(&plan, |step| *step == Step::Pivot),
        at(&plan, |step| matches!(step, Step::Mask { .. })),
        at(&plan, |step| matches!(step, Step::Bounding { .. })),
        at(&plan, |step| matches!(step, Step::Uid { .. })),
        at(&plan, |step| matches!(step, Step::Capset { .. })),
        at(&plan, |step| matches!(step, Step::Prctl { option: 38, .. })),
        at(&plan, |step| matches!(step, Step::FindExec { .. })),
        at(&plan, |step| *step == Step::Ready),
        at(&plan, |step| matches!(step, Step::Rlimit { .. })),
        at(&plan, |step| matches!(step, Step::CloseFds { .. })),
        at(&plan, |step| matches!(step, Step::Seccomp { .. })),
        at(&plan, |step| matches!(step, Step::Exec { .. })),
    ];
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn without_no_new_privs_the_capabilities_outlive_the_filter() {
    let mut config = harden::config().unwrap();
    config["process"]["noNewPrivileges"] = json!(false);
    let plan = plan(&config, &Options::default());
    let sets: Vec<usize> = (0..plan.program.steps.len())
        .filter(|at| matches!(plan.program.steps[*at].step, Step::Capset { .. }))
        .collect();
    let filter = at(&plan, |step| matches!(step, Step::Seccomp { .. }));
    assert!(sets.len() == 2 && sets[0] < filter && filter < sets[1], "{sets:?} {filter}");
    assert_eq!(plan.program.steps[sets[1]].step, Step::Capset { effective: 0, permitted: 0, inheritable: 0 });
}

#[test]
fn labels_are_written_before_the_user_is_another() {
    let mut config = harden::config().unwrap();
    config["process"]["apparmorProfile"] = json!("docker-default");
    config["process"]["selinuxLabel"] = json!("a:b:c");
    let plan = plan(&config, &Options::default());
    let dir = plan.sources.iter().position(|source| *source == Source::Labels).unwrap() as Slot;
    let write = |path: &str, value: &str| Step::Write { dir, path: path.into(), value: value.into() };
    let profile = at(&plan, |step| *step == write("apparmor/exec", "exec docker-default"));
    assert_eq!(at(&plan, |step| *step == write("exec", "a:b:c")), profile + 1);
    assert!(at(&plan, |step| *step == Step::Pivot) < profile);
    assert!(profile < at(&plan, |step| matches!(step, Step::Uid { .. })));
}

#[test]
fn create_waits_and_run_does_not() {
    let waits = plan(&minimal(), &Options { wait_for_start: true, ..Options::default() });
    let listener = waits.sources.iter().position(|source| *source == Source::StartSocket).unwrap() as Slot;
    assert!(steps(&waits).contains(&&Step::Await { listener }));
    assert!(!steps(&plan(&minimal(), &Options::default())).iter().any(|step| matches!(step, Step::Await { .. })));
}

#[test]
fn binds_map_their_owner_in_an_allocated_namespace_only() {
    let mut config = harden::config().unwrap();
    config["process"]["user"] = json!({"uid": 7, "gid": 8});
    config["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"destination": "/w", "type": "bind", "source": "/w", "options": ["rbind", "rw"]}));
    let idmap = |config: &Value| {
        plan(config, &Options::default()).sources.into_iter().find_map(|source| match source {
            Source::Bind { attr, .. } => Some(attr.idmap),
            _ => None,
        })
    };
    assert_eq!(idmap(&config), Some(Idmap::Owner { uid: 7, gid: 8 }));
    config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    config["linux"]["gidMappings"] = config["linux"]["uidMappings"].clone();
    assert_eq!(idmap(&config), Some(Idmap::None), "somebody else's maps are taken as they are");
}

#[test]
fn exec_is_born_last_and_with_nothing() {
    let spec: Spec = serde_json::from_value(harden::config().unwrap()).unwrap();
    let wanted = Exec { process: spec.process().as_ref().unwrap(), spec: &spec, filter: None };
    let (program, sources) = exec(&wanted, &HOST, &Options::default()).unwrap();
    let position =
        |wanted: &dyn Fn(&Step) -> bool| program.steps.iter().position(|planned| wanted(&planned.step)).unwrap();
    let fork = position(&|step| *step == Step::Fork);
    assert!(position(&|step| matches!(step, Step::SetNs { slot: 0, .. })) < fork);
    assert!(position(&|step| matches!(step, Step::Capset { .. })) < fork);
    assert!(fork < position(&|step| matches!(step, Step::CloseFds { .. })));
    assert_eq!(sources, [Source::Container]);
}

#[test]
fn what_a_config_lacks_is_named() {
    let lacking = |config: &Value| harden::lacking(&serde_json::from_value(config.clone()).unwrap()).join(", ");
    let config = harden::config().unwrap();
    assert_eq!(lacking(&config), "");
    let edits = [
        ("L1", "/linux/namespaces/0", json!({ "type": "network", "path": "/proc/1/ns/net" })),
        ("L2", "/linux/seccomp", json!(null)),
        ("L3", "/root/readonly", json!(false)),
        ("L4", "/process/capabilities/bounding", json!(["CAP_KILL"])),
        ("L5", "/linux/resources/pids/limit", json!(-1)),
        ("L6", "/linux/resources/cpu", json!({ "quota": -1 })),
        ("L7", "/linux/namespaces/1", json!({ "type": "time" })),
        ("L8", "/process/noNewPrivileges", json!(false)),
    ];
    for (layer, at, value) in edits {
        let mut config = config.clone();
        *config.pointer_mut(at).unwrap() = value;
        let lacking = lacking(&config);
        assert!(lacking.starts_with(layer) && !lacking.contains(','), "{layer}: {lacking}");
    }
    let all = lacking(&minimal());
    assert_eq!(all.replace("L4 capabilities, ", "").matches('L').count(), 7, "{all}");
}

#[test]
fn every_program_encodes_and_names_its_fields() {
    let plan = plan(&harden::config().unwrap(), &Options::default());
    let bytes = plan.program.encode();
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(4) as usize, word(8) as usize), (program::MAGIC, plan.program.steps.len(), bytes.len()));
    for (index, planned) in plan.program.steps.iter().enumerate() {
        assert_eq!(program::Op::from_u32(word(program::HEADER + index * program::STEP)), Some(planned.step.op()));
    }
    let option = plan
        .program
        .steps
        .iter()
        .find(|planned| matches!(&planned.step, Step::FsConfig { key, .. } if key == "ptmxmode"))
        .unwrap();
    assert_eq!(option.field, "mounts[2].options[3]");
}

#[test]
fn a_fresh_network_comes_last_and_takes_its_rights_along() {
    let options = Options { wait_for_start: true, fresh_network: true, ..Options::default() };
    let plan = plan(&harden::config().unwrap(), &options);
    let steps = steps(&plan);
    let unshare = Step::Unshare { flags: libc::CLONE_NEWNET as u32 };
    let places = |wanted: &dyn Fn(&Step) -> bool| -> Vec<usize> {
        steps.iter().enumerate().filter(|(_, step)| wanted(step)).map(|(at, _)| at).collect()
    };
    let capsets = places(&|step| matches!(step, Step::Capset { .. }));
    let networks = places(&|step| *step == unshare);
    let awaits = places(&|step| matches!(step, Step::Await { .. }));
    let (ups, filters) = (places(&|step| *step == Step::LoUp), places(&|step| matches!(step, Step::Seccomp { .. })));
    // The engine's network, the rights for the second one, the wait for `start`, the second one, no rights, the filter.
    assert_eq!((networks.len(), ups.len(), capsets.len(), awaits.len(), filters.len()), (2, 2, 2, 1, 1));
    let order = [networks[0], capsets[0], awaits[0], networks[1], ups[1], capsets[1], filters[0]];
    assert!(order.is_sorted(), "{order:?}");
    let rights = 1 << 12 | 1 << 21;
    assert_eq!(*steps[capsets[0]], Step::Capset { effective: rights, permitted: rights, inheritable: 0 });
    assert_eq!(*steps[capsets[1]], Step::Capset { effective: 0, permitted: 0, inheritable: 0 });
    assert_eq!(*steps[capsets[1] + 1], Step::Ambient { set: 0 });
}

#[test]
fn a_floor_is_the_filter_of_a_config_that_has_none() {
    let options = Options { seccomp_floor: vec![seccomp::workspace()], ..Options::default() };
    let mut config = harden::config().unwrap();
    let alone = plan(&config, &Options::default()).filter;
    config["linux"]["seccomp"] = Value::Null;
    assert_eq!(plan(&config, &options).filter, alone);
}

#[test]
fn ping_groups_are_those_of_the_user_namespace() {
    let with = |maps: Value, range: &str| {
        let mut config = minimal();
        config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}, {"type": "network"}]);
        if !maps.is_null() {
            config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
            config["linux"]["gidMappings"] = maps;
        }
        config["linux"]["sysctl"] = json!({"net.ipv4.ping_group_range": range});
        let plan = plan(&config, &Options::default());
        let written = plan.program.steps.iter().find_map(|planned| match &planned.step {
            Step::Write { path, value, .. } if path.ends_with("ping_group_range") => Some(value.clone()),
            _ => None,
        });
        (written.unwrap(), plan.warnings.iter().filter(|warning| warning.contains("ping_group_range")).count())
    };
    assert_eq!(with(Value::Null, "0 2147483647"), ("0 65535".into(), 1));
    assert_eq!(with(Value::Null, "0\t100"), ("0\t100".into(), 0));
    let two = json!([{"containerID": 1, "hostID": 9000, "size": 10}, {"containerID": 0, "hostID": 1000, "size": 1}]);
    assert_eq!(with(two, "0 2147483647"), ("0 10".into(), 1));
    let apart = json!([{"containerID": 5, "hostID": 9000, "size": 1}, {"containerID": 0, "hostID": 1000, "size": 1}]);
    assert_eq!(with(apart, "4 7"), ("4 7".into(), 0), "the kernel says what is wrong");
}

#[test]
fn the_sysctl_of_the_domain_name_is_a_call() {
    let mut config = minimal();
    config["linux"]["sysctl"] = json!({"kernel.domainname": "x.org\n"});
    let plan = plan(&config, &Options::default());
    let named = |step: &&Step| matches!(step, Step::Domainname { name } if name == "x.org");
    let written = |step: &&Step| matches!(step, Step::Write { path, .. } if path.ends_with("domainname"));
    let steps = steps(&plan);
    assert_eq!((steps.iter().copied().filter(named).count(), steps.iter().copied().filter(written).count()), (1, 0));
}
