// SPDX-License-Identifier: Apache-2.0
//! Limits as writes, by value.

use serde_json::{Value, json};

use super::*;

fn wanted(json: Value) -> Result<Wanted> {
    Wanted::new(&serde_json::from_value(json).unwrap())
}

fn pairs(writes: Vec<Write>) -> Vec<(String, String)> {
    writes.into_iter().map(|write| (write.file, write.value)).collect()
}

fn v1(json: Value) -> Vec<(String, String)> {
    pairs(wanted(json).unwrap().v1_writes().unwrap())
}

fn v2(json: Value) -> Vec<(String, String)> {
    pairs(wanted(json).unwrap().v2_writes().unwrap())
}

fn owned<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(file, value)| (file.to_owned(), value.to_owned())).to_vec()
}

#[test]
fn limits_become_writes() {
    let json = json!({"memory": {"limit": 1000, "swap": 1500}, "pids": {"limit": 7}, "cpu": {"quota": 5000, "period": 10000, "shares": 1024}});
    let want = [
        ("memory.max", "1000"),
        ("memory.oom.group", "1"),
        ("memory.swap.max", "500"),
        ("pids.max", "7"),
        ("cpu.max", "5000 10000"),
        ("cpu.weight", "100"),
    ];
    assert_eq!(v2(json.clone()), owned(want));
    let want = [
        ("memory.limit_in_bytes", "1000"),
        ("memory.memsw.limit_in_bytes", "1500"),
        ("pids.max", "7"),
        ("cpu.cfs_period_us", "10000"),
        ("cpu.cfs_quota_us", "5000"),
        ("cpu.shares", "1024"),
    ];
    assert_eq!(v1(json), owned(want));
    assert_eq!(v2(json!({"memory": {"limit": -1}})), owned([("memory.max", "max")]));
    assert_eq!(v1(json!({"memory": {"limit": -1}})), owned([("memory.limit_in_bytes", "-1")]));
    assert_eq!(v2(json!({"pids": {"limit": -1}})), owned([("pids.max", "max")]));
    // The values that runc 1.4 and Kubernetes give.
    for (shares, want) in
        [(1, 1), (2, 1), (3, 2), (256, 35), (1024, 100), (2000, 170), (262_144, 10_000), (999_999_999, 10_000)]
    {
        assert_eq!(weight(shares), want, "{shares} shares");
    }
    assert_eq!((io_weight(10), io_weight(500), io_weight(1000)), (1, 4950, 10_000));
}

#[test]
fn zeros_of_engines_ask_nothing() {
    let zeros = json!({"memory": {"limit": 0, "disableOOMKiller": false}, "pids": {"limit": 0}, "cpu": {"shares": 0, "quota": 0},
        "blockIO": {"weight": 0, "leafWeight": 0}, "network": {"classID": 0, "priorities": []}, "hugepageLimits": []});
    assert_eq!((v1(zeros.clone()), v2(zeros)), (vec![], vec![]));
}

#[test]
fn block_devices() {
    let json = json!({"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1048576}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}]}});
    let want = [
        ("io.weight", "default 4950"),
        ("io.weight", "8:0 1"),
        ("io.max", "8:0 rbps=1048576"),
        ("io.max", "8:16 wiops=max"),
    ];
    assert_eq!(v2(json.clone()), owned(want));
    let on_bfq = |writes: Vec<Write>| pairs(writes.iter().map(|write| write.settled(|_| true).into_owned()).collect());
    let weights = on_bfq(wanted(json.clone()).unwrap().v2_writes().unwrap());
    assert_eq!(weights[..2], owned([("io.bfq.weight", "default 500"), ("io.bfq.weight", "8:0 10")]));
    let weights = on_bfq(wanted(json.clone()).unwrap().v1_writes().unwrap());
    assert_eq!(weights[..2], owned([("blkio.bfq.weight", "500"), ("blkio.bfq.weight_device", "8:0 10")]));
    let want = [
        ("blkio.weight", "500"),
        ("blkio.weight_device", "8:0 10"),
        ("blkio.throttle.read_bps_device", "8:0 1048576"),
        ("blkio.throttle.write_iops_device", "8:16 0"),
    ];
    assert_eq!(v1(json), owned(want));
}

#[test]
fn the_rest() {
    let json =
        json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}], "rdma": {"mlx5_1": {"hcaHandles": 3}}});
    let rdma = ("rdma.max", "mlx5_1 hca_handle=3 hca_object=max");
    assert_eq!(v2(json.clone()), owned([("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304"), rdma]));
    assert_eq!(
        v1(json),
        owned([("hugetlb.2MB.limit_in_bytes", "4194304"), ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"), rdma])
    );
    let json = json!({"memory": {"swappiness": 10, "disableOOMKiller": true, "kernelTCP": 4096}, "cpu": {"realtimeRuntime": 5, "idle": 1},
        "network": {"classID": 3, "priorities": [{"name": "eth0", "priority": 5}]}});
    let want = [
        ("memory.kmem.tcp.limit_in_bytes", "4096"),
        ("memory.swappiness", "10"),
        ("memory.oom_control", "1"),
        ("cpu.idle", "1"),
        ("cpu.rt_runtime_us", "5"),
        ("net_cls.classid", "3"),
        ("net_prio.ifpriomap", "eth0 5"),
    ];
    assert_eq!(v1(json), owned(want));
}

#[test]
fn what_the_other_version_has_is_refused_by_field() {
    for (json, field) in [
        (json!({"memory": {"disableOOMKiller": true}}), "linux.resources.memory.disableOOMKiller:"),
        (json!({"memory": {"swappiness": 10}}), "linux.resources.memory.swappiness:"),
        (json!({"network": {"classID": 1}}), "linux.resources.network.classID:"),
    ] {
        assert!(wanted(json.clone()).unwrap().v2_writes().unwrap_err().to_string().starts_with(field), "{json}");
    }
    let unified = wanted(json!({"unified": {"memory.high": "1"}})).unwrap();
    assert!(unified.v1_writes().unwrap_err().to_string().starts_with("linux.resources.unified:"));
}

#[test]
fn nonsense_is_refused_by_field() {
    for (json, field) in [
        (json!({"unified": {"../x": "1"}}), "linux.resources.unified"),
        (json!({"unified": {"cgroup.procs": "1"}}), "linux.resources.unified"),
        (json!({"memory": {"limit": 10, "swap": 5}}), "linux.resources.memory.swap:"),
        (json!({"memory": {"swap": 5}}), "linux.resources.memory.swap:"),
        (json!({"memory": {"limit": -5}}), "linux.resources.memory.limit:"),
        (json!({"memory": {"swappiness": 101}}), "linux.resources.memory.swappiness:"),
        (json!({"memory": {"kernel": 4096}}), "linux.resources.memory.kernel:"),
        (json!({"blockIO": {"weight": 5}}), "linux.resources.blockIO.weight:"),
        (json!({"cpu": {"cpus": "0;1"}}), "linux.resources.cpu.cpus:"),
        (
            json!({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}),
            "linux.resources.hugepageLimits[0].pageSize:",
        ),
        (json!({"rdma": {"a b": {}}}), "linux.resources.rdma"),
    ] {
        assert!(wanted(json.clone()).unwrap_err().to_string().starts_with(field), "{json}");
    }
}
