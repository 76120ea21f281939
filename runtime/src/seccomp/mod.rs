//! placeholder
#![allow(missing_docs)]
use oci_spec::runtime::LinuxSeccomp;
#[repr(C)] #[derive(Clone, Copy, Debug, PartialEq)] pub struct Insn { pub code: u16, pub jt: u8, pub jf: u8, pub k: u32 }
#[derive(Clone, Debug, PartialEq)] pub struct Filter { pub program: Vec<Insn>, pub flags: u32, pub warnings: Vec<String> }
#[derive(Clone, Debug, Default)] pub struct Options { pub deny_set_id: bool, pub x: () }
pub fn compile(_: &LinuxSeccomp, _: &Options) -> crate::Result<Filter> { Ok(Filter { program: vec![Insn { code: 6, jt: 0, jf: 0, k: 0x7fff0000 }], flags: 0, warnings: vec![] }) }
pub fn allow_all() -> LinuxSeccomp { LinuxSeccomp::default() }
pub fn to_bytes(p: &[Insn]) -> Vec<u8> { p.iter().flat_map(|i| { let mut b = i.code.to_ne_bytes().to_vec(); b.push(i.jt); b.push(i.jf); b.extend(i.k.to_ne_bytes()); b }).collect() }
pub fn from_bytes(b: &[u8]) -> Vec<Insn> { b.chunks_exact(8).map(|c| Insn { code: u16::from_ne_bytes([c[0], c[1]]), jt: c[2], jf: c[3], k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]) }).collect() }
pub const WORKSPACE: &str = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
