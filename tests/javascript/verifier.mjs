// A second verifier, written from SPEC.md alone, without a look at the first one: where both agree on every vector, the
// text is enough. Later changes follow the text, by authors who knew both. Node 20 or newer, no packages. Not for use: it opens no
// state and speaks to nobody.
import { createHash, createHmac, createPublicKey, verify as edVerify } from 'node:crypto';

export class Malformed extends Error {}
export const bad = (why) => { throw new Malformed(why); };
const MAX63 = (1n << 63n) - 1n;

// ---------------------------------------------------------------- 1 encodings
export const cat = (...parts) => Buffer.concat(parts);
const u8 = (n) => Buffer.from([Number(n)]);
const u16 = (n) => { const b = Buffer.alloc(2); b.writeUInt16BE(Number(n)); return b; };
const u32 = (n) => { const b = Buffer.alloc(4); b.writeUInt32BE(Number(n)); return b; };
export const u64 = (n) => { const b = Buffer.alloc(8); b.writeBigUInt64BE(BigInt(n)); return b; };
export const utf8 = (s) => Buffer.from(s, 'utf8');
export const text = (s) => { const b = utf8(s); return cat(u32(b.length), b); };
export const tag = (label) => utf8(`nextcloud-audit/1/${label}\0`);
export const sha3 = (b) => createHash('sha3-256').update(b).digest();
const sha256 = (b) => createHash('sha256').update(b).digest();
export const H = (label, ...parts) => sha3(cat(tag(label), ...parts));
export const ZERO32 = Buffer.alloc(32);
export const same = (a, b) => Buffer.compare(a, b) === 0;

export function decimal(s) {                                        // 1.1
  if (typeof s !== 'string' || !/^(0|[1-9][0-9]{0,18})$/.test(s)) bad('not a decimal');
  const n = BigInt(s);
  if (n > MAX63) bad('number above 2^63-1');
  return n;
}
export function base64(s) {                                         // 1.3
  if (typeof s !== 'string') bad('base64 is not a string');
  if (s.length % 4 || !/^[A-Za-z0-9+/]*={0,2}$/.test(s)) bad('base64');
  const b = Buffer.from(s, 'base64');
  if (b.toString('base64') !== s) bad('base64 not canonical');
  return b;
}
export const b32 = (s) => { const b = base64(s); if (b.length !== 32) bad('not 32 bytes'); return b; };
export function hashes(s, max) {
  const b = base64(s);
  if (b.length % 32 || b.length / 32 > max) bad('list of hashes');
  return Array.from({ length: b.length / 32 }, (_, i) => b.subarray(32 * i, 32 * i + 32));
}
function jsonText(s) {                                       // 1.2
  if (typeof s !== 'string' || s === '' || /[\u0000-\u001f\u007f]/.test(s) || !s.isWellFormed()) bad('text');
  return s;
}
const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
function fromUtf8(b) { try { return strictUtf8.decode(b); } catch { return bad('not UTF-8'); } }

class Reader {                                               // strict binary reader
  constructor(b) { this.b = b; this.at = 0; }
  bytes(n) { if (this.at + n > this.b.length) bad('truncated'); const r = this.b.subarray(this.at, this.at + n); this.at += n; return r; }
  u8() { return this.bytes(1)[0]; }
  u16() { return this.bytes(2).readUInt16BE(); }
  u64() { const n = this.bytes(8).readBigUInt64BE(); if (n > MAX63) bad('number above 2^63-1'); return n; }
  left() { return this.b.length - this.at; }
  end() { if (this.left()) bad('bytes left over'); }
}
function ascending(items) {
  for (let i = 1; i < items.length; i++) if (Buffer.compare(items[i - 1], items[i]) >= 0) bad('list not ascending');
}

// ---------------------------------------------------------------- Ed25519 (2.6)
const P = (1n << 255n) - 19n;
const mod = (x) => ((x % P) + P) % P;
function pow(b, e) { let r = 1n; b = mod(b); for (; e; e >>= 1n) { if (e & 1n) r = r * b % P; b = b * b % P; } return r; }
const inv = (x) => pow(x, P - 2n);
const D = mod(-121665n * inv(121666n));
const SQRT_M1 = pow(2n, (P - 1n) / 4n);
function edAdd([x1, y1], [x2, y2]) {
  const k = mod(D * x1 * x2 % P * y1 % P * y2);
  return [mod((x1 * y2 + y1 * x2) * inv(1n + k)), mod((y1 * y2 + x1 * x2) * inv(1n - k))];
}
export function goodKey(raw) {
  if (raw.length !== 32) return false;
  const le = Buffer.from(raw).reverse();
  const sign = le[0] >> 7; le[0] &= 0x7f;
  const y = BigInt('0x' + le.toString('hex'));
  if (y >= P) return false;
  const u = mod(y * y - 1n), v = mod(D * y * y + 1n);
  let x = mod(u * pow(v, 3n) * pow(u * pow(v, 7n), (P - 5n) / 8n));
  if (mod(v * x * x) !== u) { x = mod(x * SQRT_M1); if (mod(v * x * x) !== u) return true; } // no point: no signature holds under it
  if (x === 0n && sign) return false;
  if (Number(x & 1n) !== sign) x = mod(-x);
  let p = [x, y];
  for (let i = 0; i < 3; i++) p = edAdd(p, p);
  return !(p[0] === 0n && p[1] === 1n);
}
const DER = Buffer.from('302a300506032b6570032100', 'hex');
const keyObject = (raw) => createPublicKey({ key: cat(DER, raw), format: 'der', type: 'spki' });
export const signed = (raw, message, signature) => signature.length === 64 && edVerify(null, message, keyObject(raw), signature);

// ---------------------------------------------------------------- C2SP: keys, policies, notes
const SPACE = /[\p{White_Space}]/u;
function keyName(s) {                                        // 2.2, signed-note
  if (s === '' || utf8(s).length > 255 || SPACE.test(s) || s.includes('+') || /\p{Cc}/u.test(s)) bad('key name');
  return s;
}
export function vkey(s, type) {
  const m = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/s.exec(s);
  if (!m) bad('vkey');
  const name = keyName(m[1]), material = base64(m[3]);
  if (material.length !== 33 || material[0] !== type) bad('vkey type');
  const id = sha256(cat(utf8(name), utf8('\n'), material)).subarray(0, 4).toString('hex');
  if (id !== m[2]) bad('vkey key id');
  const raw = material.subarray(1);
  if (!goodKey(raw)) bad('vkey point');
  return { name, id, type, raw };
}
export const logKey = (name, raw) => vkey(`${name}+${sha256(cat(utf8(name), utf8('\n'), u8(1), raw)).subarray(0, 4).toString('hex')}+${
  cat(u8(1), raw).toString('base64')}`, 1);
export function parsePolicy(source, auditors) {
  if (typeof source !== 'string' || !source.isWellFormed()) bad('policy');
  if (!source.endsWith('\n')) bad('policy: last line unterminated');
  if (/[\u0000-\u0008\u000b-\u001f\u007f]/.test(source)) bad('policy: control character');
  const names = new Map(), used = new Set(), logs = [], witnesses = [];
  let quorum;
  const define = (name, node) => { if (name === 'none' || names.has(name)) bad('policy: name'); names.set(name, node); };
  for (const line of source.slice(0, -1).split('\n')) {
    const w = line.split(/[ \t]+/).filter((x) => x !== '');
    if (!w.length || w[0].startsWith('#')) continue;
    if (w[0] === 'log' && (w.length === 2 || w.length === 3)) {
      const k = vkey(w[1], 1);
      if (logs.some((o) => same(o.raw, k.raw))) bad('policy: duplicate log');
      logs.push(k);
    } else if (w[0] === 'witness' && (w.length === 3 || w.length === 4)) {
      const k = vkey(w[2], 4);
      if (witnesses.some((o) => same(o.raw, k.raw))) bad('policy: duplicate witness');
      if (k.name.endsWith('/auditor') !== auditors) bad('policy: /auditor');
      witnesses.push(k);
      define(w[1], { key: k, q: 1, ov: 1 });
    } else if (w[0] === 'group' && w.length >= 4) {
      const members = w.slice(3).map((n) => {
        if (!names.has(n) || used.has(n)) bad('policy: member');
        used.add(n);
        return names.get(n);
      });
      const n = members.length;
      const k = w[2] === 'any' ? 1 : w[2] === 'all' ? n : Number(decimal(w[2]));
      if (k < 1 || k > n) bad('policy: threshold');
      const least = (field, count) => members.map((m) => m[field]).sort((a, b) => a - b)
        .slice(0, Math.max(0, count)).reduce((a, b) => a + b, 0);
      define(w[1], { k, members, q: least('q', k), ov: least('ov', 2 * k - n) });
    } else if (w[0] === 'quorum' && w.length === 2) {
      if (quorum) bad('policy: two quorums');
      quorum = w[1] === 'none' ? { k: 0, members: [], q: 0, ov: 0 } : names.get(w[1]);
      if (!quorum) bad('policy: quorum name');
    } else bad('policy: line');
  }
  if (!quorum) bad('policy: no quorum');
  if (utf8(source).length > 256 * 1024 || [logs.length, witnesses.length, names.size - witnesses.length].some((n) => n > 256)) bad('policy: bounds');
  return { logs, witnesses, quorum };
}
function checkPolicyPair(a, b) {                             // 8.1
  const lines = (x) => x.logs.map((k) => `${k.name}+${k.raw.toString('hex')}`).sort().join('\n');
  if (lines(a) !== lines(b)) bad('policies name different logs');
  for (const x of a.witnesses) for (const y of b.witnesses)
    if (same(x.raw, y.raw) && !a.logs.some((k) => same(k.raw, x.raw))) bad('a key in both policies');
}
const holds = (node, has) => node.key ? has(node.key) : node.members.filter((m) => holds(m, has)).length >= node.k;

export function parseNote(s, extensions = false) {
  if (typeof s !== 'string' || !s.isWellFormed() || utf8(s).length > 128 * 1024) bad('note');
  if (/[\u0000-\u0009\u000b-\u001f]/.test(s)) bad('note: control character');
  const cut = s.lastIndexOf('\n\n');
  if (cut < 0 || !s.endsWith('\n')) bad('note: form');
  const body = s.slice(0, cut + 1), rest = s.slice(cut + 2, -1);
  const l = body.slice(0, -1).split('\n');
  if (l.length < 3 || (l.length > 3 && !extensions) || l.includes('')) bad('checkpoint: lines');
  if (rest === '') bad('note: no signature');
  if (rest.split('\n').length > 1024) bad('note: signature lines');
  const lines = rest.split('\n').map((line) => {
    const m = /^\u2014 ([^ ]+) ([^ ]+)$/u.exec(line);
    if (!m) bad('note: signature line');
    const sig = base64(m[2]);
    if (sig.length < 5) bad('note: signature too short');
    if (SPACE.test(m[1]) || m[1].includes('+')) bad('note: key name');
    return { name: m[1], id: sig.subarray(0, 4).toString('hex'), sig: sig.subarray(4) };
  });
  return { body, origin: keyName(l[0]), size: decimal(l[1]), root: b32(l[2]), lines };
}
// Lines of the keys of one policy (8.3): log signature and cosigner times; badLog, badLine = a known one does not verify.
export function openNote(note, policy, origin) {
  const out = { ...note, badLog: false, badLine: false, logLine: false, signed: false, times: new Map(), each: new Map() };
  const of = (k) => {
    const l = note.lines.filter((x) => x.name === k.name && x.id === k.id);
    if (l.length > 1) bad('two lines of one known key');
    return l[0];
  };
  for (const k of policy.logs) {
    const line = of(k);
    if (!line) continue;
    const ok = signed(k.raw, utf8(note.body), line.sig);
    if (!ok) out.badLog = true;
    if (k.name === origin) { out.logLine = true; if (ok && note.origin === origin) out.signed = true; }
  }
  for (const k of policy.witnesses) {
    const line = of(k);
    if (!line) continue;
    if (line.sig.length !== 72) { out.badLine = true; continue; }
    const t = line.sig.readBigUInt64BE(0);
    const ok = t >= 1n && t <= MAX63 && signed(k.raw, utf8(`cosignature/v1\ntime ${t}\n${note.body}`), line.sig.subarray(8));
    if (ok) { out.times.set(k, t); out.each.set(k, t); } else out.badLine = true;   // each: by its own line alone (9, 9.1)
  }
  if (out.badLog) out.signed = false;
  if (out.badLine) out.times.clear();
  return out;
}
// The reason why a note is not the log's (9, step 2), or, with earlier, not one of its earlier trees (step 15); or null.
function noteFault(n, policy, origin, earlier = false) {
  if (n.origin !== origin || !policy.logs.some((k) => k.name === origin)) return 'unknown-log';
  if (!n.logLine && !earlier) return 'unsigned';
  if (n.badLog) return 'bad-signature';
  return n.size === 0n ? 'empty-tree' : null;
}
const counted = (note, k, now) => note.times.has(k) && note.times.get(k) >= 1n && note.times.get(k) <= now + 30n;
const hasQuorum = (note, policy, now) => holds(policy.quorum, (k) => counted(note, k, now));
function noteTimes(note, policy, now) {                      // 8.4
  const ts = [...new Set(policy.witnesses.filter((k) => counted(note, k, now)).map((k) => note.times.get(k)))]
    .sort((a, b) => (a < b ? -1 : 1));
  const notLater = ts.find((T) => holds(policy.quorum, (k) => counted(note, k, now) && note.times.get(k) <= T));
  const newest = ts.reverse().find((T) => holds(policy.quorum, (k) => counted(note, k, now) && note.times.get(k) >= T));
  return { notLater, newest };                               // undefined where there is no quorum
}

// ---------------------------------------------------------------- 6 tree and map
export const leafHash = (leaf) => sha256(cat(u8(0), leaf));
export const nodeHash = (l, r) => sha256(cat(u8(1), l, r));
// 7.1: the number of hashes that lead from the node at an index to the root above the last one.
function fits(index, last, count) {
  let inner = 0n, border = 0n;
  while (index >> inner !== last >> inner) inner += 1n;
  for (let rest = index >> inner; rest; rest >>= 1n) border += rest & 1n;
  if (BigInt(count) !== inner + border) bad('number of hashes');
}
export function inclusion(leaf, index, size, proof, root) {  // RFC 9162 2.1.3.2
  if (index >= size) bad('index is not below the size');
  fits(index, size - 1n, proof.length);
  let fn = index, sn = size - 1n, r = leafHash(leaf);
  for (const p of proof) {
    if (sn === 0n) return false;
    if ((fn & 1n) || fn === sn) {
      r = nodeHash(p, r);
      if (!(fn & 1n)) while (!(fn & 1n) && fn !== 0n) { fn >>= 1n; sn >>= 1n; }
    } else r = nodeHash(r, p);
    fn >>= 1n; sn >>= 1n;
  }
  return sn === 0n && same(r, root);
}
export function consistency(first, firstRoot, second, secondRoot, proof) { // RFC 9162 2.1.4.2
  if (first > second) bad('sizes of a consistency proof');
  if (first === 0n || first === second) {
    if (proof.length) bad('hashes where none are needed');
    return same(firstRoot, first === 0n ? sha256(Buffer.alloc(0)) : secondRoot);
  }
  if (proof.length === 0 && (first & (first - 1n)) !== 0n) bad('number of hashes');
  const path = (first & (first - 1n)) === 0n ? [firstRoot, ...proof] : proof;
  let fn = first - 1n, sn = second - 1n;
  while (fn & 1n) { fn >>= 1n; sn >>= 1n; }
  fits(fn, sn, path.length - 1);
  let fr = path[0], sr = path[0];
  for (const c of path.slice(1)) {
    if (sn === 0n) return false;
    if ((fn & 1n) || fn === sn) {
      fr = nodeHash(c, fr); sr = nodeHash(c, sr);
      if (!(fn & 1n)) while (!(fn & 1n) && fn !== 0n) { fn >>= 1n; sn >>= 1n; }
    } else sr = nodeHash(sr, c);
    fn >>= 1n; sn >>= 1n;
  }
  return sn === 0n && same(fr, firstRoot) && same(sr, secondRoot);
}
export const mapValue = (seq, head, index) => H('map-value', u64(seq), head, u64(index));
export function presence(key, value, siblings, root) {       // 6.3
  return climb(key, H('map-leaf', key, value), siblings, root);
}
function climb(key, h, siblings, root) {
  const n = siblings.length;
  for (let i = 0; i < n; i++) {
    const bit = n - 1 - i;
    h = (key[bit >> 3] >> (7 - (bit & 7))) & 1 ? H('map-node', siblings[i], h) : H('map-node', h, siblings[i]);
  }
  return same(h, root);
}
const agree = (a, b, n) => { for (let i = 0; i < n; i++) if (((a[i >> 3] ^ b[i >> 3]) >> (7 - (i & 7))) & 1) return false; return true; };
export function absence(key, { other, siblings }, root) {
  if (other === null) return climb(key, ZERO32, siblings, root);
  if (same(other.key, key) || !agree(other.key, key, siblings.length)) return false;
  return climb(key, H('map-leaf', other.key, other.value), siblings, root);
}
const entryLeaf = (chain, seq, x) => cat(u8(1), chain, u64(seq), x);

// ---------------------------------------------------------------- 3 entries and parts
const OPS = { 1: 'created', 2: 'written', 3: 'moved', 4: 'touched', 5: 'copied', 6: 'deleted', 7: 'restored', 8: 'reverted',
  9: 'expired', 10: 'adopted', 11: 'gap', 12: 'altered', 13: 'sealed', 14: 'erased', 15: 'closed' };
const KINDS = { 1: 'altered', 2: 'gap', 3: 'unsigned-close' };
const within = (v, lo, hi) => (v < lo || v > hi ? bad('code out of range') : v);
const seqNumber = (r) => { const n = r.u64(); return n; };

function parseSealBody(r) {
  const start = r.at;
  const seal = { seq: r.u64(), head: r.bytes(32), commitment: r.bytes(32), from: r.u64(), treeSize: r.u64(),
    treeRoot: r.bytes(32), newest: r.bytes(32), accepts: [] };
  const n = r.u16();
  if (n > 1024) bad('too many items');
  const items = [];
  for (let i = 0; i < n; i++) {
    items.push(r.bytes(40));
    const x = new Reader(items[i]);
    seal.accepts.push({ chain: x.bytes(32), seq: x.u64() });
  }
  ascending(items);
  seal.body = r.b.subarray(start, r.at);
  seal.signature = r.bytes(64);
  return seal;
}
export function parseEntry(bytes) {
  const r = new Reader(bytes);
  if (r.u8() !== 1) bad('entry format');
  const op = OPS[r.u8()] ?? bad('operation');
  const e = { bytes, op, seq: r.u64(), recorded: r.u64(), mtime: r.u64(),
    commitments: [r.bytes(32), r.bytes(32), r.bytes(32)], d: H('entry', bytes) };
  if (e.seq >= 16384n) bad('seq');
  if (op === 'reverted') e.target = seqNumber(r);
  else if (op === 'expired') {
    e.reason = within(r.u8(), 1, 3);
    const n = within(r.u16(), 1, 1024), items = [];
    e.seqs = [];
    for (let i = 0; i < n; i++) { items.push(r.bytes(8)); e.seqs.push(new Reader(items[i]).u64()); }
    ascending(items);
  } else if (op === 'adopted') {
    if (r.left()) e.predecessor = { chain: r.bytes(32), seq: r.u64(), head: r.bytes(32) };
  } else if (op === 'gap') e.reason = within(r.u8(), 1, 3);
  else if (op === 'sealed') e.seal = parseSealBody(r);
  else if (op === 'erased') { e.target = seqNumber(r); e.part = within(r.u8(), 1, 3) - 1; }
  else if (op === 'closed') {
    e.reason = within(r.u8(), 1, 8);
    const n = r.u16(), items = [];
    if (n > 1024) bad('too many items');
    e.taints = [];
    for (let i = 0; i < n; i++) {
      items.push(r.bytes(41));
      const x = new Reader(items[i]);
      e.taints.push({ chain: x.bytes(32), seq: x.u64(), kind: KINDS[within(x.u8(), 1, 3)] });
    }
    ascending(items);
    if (e.reason === 8) e.gaveUp = { chain: r.bytes(32), seq: r.u64(), head: r.bytes(32) };
    e.unsignedBytes = bytes.subarray(0, r.at);
    e.signature = e.reason === 8 || r.left() ? r.bytes(64) : null;
  }
  r.end();
  return e;
}
function parseContent(b) {                                   // 3.4; null = empty
  if (!b.length) return null;
  const r = new Reader(b), c = { size: r.u64() };
  const n = within(r.u8(), 1, 8);
  let last = 0;
  for (let i = 0; i < n; i++) {
    const alg = r.u8(), digest = r.bytes(r.u8());
    if (alg <= last) bad('algorithms not ascending');
    if (i === 0) { if (alg !== 1 || digest.length !== 32) bad('first digest'); c.digest = digest; }
    last = alg;
  }
  r.end();
  return c;
}
function parsePath(b) {                                      // 3.5
  if (!b.length) return null;
  if (b.length > 4096) bad('path too long');
  const s = fromUtf8(b);
  if (s.includes('\0') || s.split('/').some((n) => n === '' || n === '.' || n === '..')) bad('path');
  return Buffer.from(b);
}
function parseContext(b) {                                   // 3.6
  if (!b.length) return new Map();
  if (b.length > 8192) bad('context too long');
  const r = new Reader(b), fields = new Map();
  let last = 0;
  while (r.left()) {
    const n = within(r.u8(), 1, 5);
    if (n <= last) bad('context fields not ascending');
    last = n;
    fields.set(n, fromUtf8(r.bytes(r.u16())));
  }
  return fields;
}
const PARTS = ['content', 'path', 'context'];
const PARSE = [parseContent, parsePath, parseContext];
function parseStep(v) {                                      // [entry, content, path, context]
  if (!Array.isArray(v) || v.length !== 4) bad('entry list');
  const e = parseEntry(base64(v[0]));
  e.openings = v.slice(1).map((s) => (s === null ? null : base64(s)));
  if (e.openings.some((o) => o !== null && o.length < 32)) bad('opening');
  let parts;                                                 // parts[i]: undefined = not shown, null = empty; once `opens` has looked
  Object.defineProperty(e, 'parts', { get: () => (parts ??= e.openings.map((o, i) => (o === null ? undefined : PARSE[i](o.subarray(32))))) });
  return e;
}
/** Of each item in `entries`, the entry's bytes: for those who hash and do not judge them (9.1). */
export const entryBytes = (items) => items.map((v) => {
  if (!Array.isArray(v) || v.length !== 4) bad('entry list');
  const [entry] = v.map((s, i) => (s === null && i > 0 ? null : base64(s)));
  return entry;
});
const opens = (e) => e.openings.every((o, i) => o === null || same(sha3(cat(tag(PARTS[i]), o)), e.commitments[i]));

// ---------------------------------------------------------------- 7 proof file
export function members(v, ...keys) {
  if (typeof v !== 'object' || v === null || Array.isArray(v)) bad('not an object');
  const have = Object.keys(v);
  if (have.length !== keys.length || have.some((k, i) => k !== keys[i])) bad(`members: ${have}`);
  return v;
}
export const orNull = (v, f) => (v === null ? null : f(v));
export const list = (v, max, f) => (Array.isArray(v) && v.length <= max ? v.map(f) : bad('list'));
const noteAndHashes = (v) => { members(v, 'checkpoint', 'hashes'); return { note: parseNote(v.checkpoint), hashes: hashes(v.hashes, 63) }; };
const sizeAndHashes = (v) => { members(v, 'size', 'hashes'); return { size: decimal(v.size), hashes: hashes(v.hashes, 63) }; };
const mapSiblings = (v) => { const l = hashes(v, 256); if (l.length && same(l[0], ZERO32)) bad('empty deepest sibling'); return l; };
const earlierItem = (x) => { members(x, 'chain', 'before', 'step', 'index', 'siblings');
  return { chain: b32(x.chain), before: b32(x.before), step: parseStep(x.step), index: decimal(x.index), siblings: mapSiblings(x.siblings) }; };
const nextOf = (v) => { members(v, 'other', 'siblings');
  const other = orNull(v.other, (o) => { const b = base64(o); if (b.length !== 64) bad('other'); return { key: b.subarray(0, 32), value: b.subarray(32) }; });
  return { other, siblings: mapSiblings(v.siblings) }; };
const replacedItem = (x) => { members(x, 'file', 'generation', 'before', 'steps', 'index', 'siblings', 'next');
  return { file: decimal(x.file), generation: decimal(x.generation), before: b32(x.before), steps: list(x.steps, 1024, parseStep),
    index: decimal(x.index), siblings: mapSiblings(x.siblings), next: orNull(x.next, nextOf) }; };
const declaredItem = (x) => { members(x, 'note', 'key', 'kept', 'signature');
  const signature = base64(x.signature);
  if (signature.length !== 64) bad('loss signature');
  return { raw: x.note, note: parseNote(x.note), key: b32(x.key), kept: decimal(x.kept), signature }; };
export const lossMessage = (d, origin) => cat(tag('loss'), text(origin), d.key, u64(d.kept), sha3(utf8(d.raw)));  // 6.5.2
const lossFile = (declared) => utf8(JSON.stringify({ format: 'nextcloud-audit/loss/1', declared }) + '\n');
const lossOf = (v) => { members(v, 'declared', 'hashes');
  const declared = list(v.declared, 16, declaredItem);
  if (!declared.length) bad('no declaration');
  return { declared, hashes: hashes(v.hashes, 63) }; };
// 7.2, the form alone: what hashes, entries and checkpoints say is looked at when their step comes (9).
const noteForm = (s) => { if (typeof s !== 'string' || !s.isWellFormed() || utf8(s).length > 128 * 1024) bad('note'); };
const absenceForm = (v) => { members(v, 'other', 'siblings'); hashes(v.siblings, 256);
  if (v.other !== null && base64(v.other).length !== 64) bad('other'); };
const bracketForm = (v) => { members(v, 'checkpoint', 'hashes'); noteForm(v.checkpoint); hashes(v.hashes, 63); };
const earlierForm = (x) => { members(x, 'chain', 'before', 'step', 'index', 'siblings');
  b32(x.chain); b32(x.before); entryBytes([x.step]); decimal(x.index); hashes(x.siblings, 256); };
const replacedForm = (x) => { members(x, 'file', 'generation', 'before', 'steps', 'index', 'siblings', 'next');
  decimal(x.file); decimal(x.generation); b32(x.before); entryBytes(list(x.steps, 1024, (y) => y)); decimal(x.index);
  hashes(x.siblings, 256); orNull(x.next, absenceForm); };
const lossForm = (v) => { members(v, 'declared', 'hashes');
  const form = (x) => { members(x, 'note', 'key', 'kept', 'signature'); noteForm(x.note); b32(x.key); decimal(x.kept); if (base64(x.signature).length !== 64) bad('signature'); };
  if (!list(v.declared, 16, form).length) bad('no declaration');
  hashes(v.hashes, 63); };
function checkForm(v) {
  members(v.map, 'root', 'seq', 'head', 'index', 'siblings');
  b32(v.map.root); b32(v.map.head); decimal(v.map.index); hashes(v.map.siblings, 256);
  if (decimal(v.map.seq) >= 16384n) bad('seq');
  entryBytes(list(v.entries, 16384, (x) => x));
  noteForm(v.checkpoint);
  hashes(v.commitment, 63);
  hashes(v.last, 63);
  orNull(v.current, (c) => { members(c, 'index', 'hashes'); decimal(c.index); hashes(c.hashes, 63); });
  for (const bracket of [v.first, v.before]) orNull(bracket, bracketForm);
  for (const since of [v.pinned, v.sealed]) orNull(since, sizeAndHashes);
  list(v.earlier, 1024, earlierForm);
  list(v.replaced, 64, replacedForm);
  if (Object.hasOwn(v, 'loss')) lossForm(v.loss);
}
/** Form and names at once; what they say on first use (9: "decoded when their step comes"). */
export function parseProof(s) {
  if (typeof s !== 'string' || !s.isWellFormed()) bad('proof');
  if (utf8(s).length > 16 * 1024 * 1024) bad('proof too long');
  let v;
  try { v = JSON.parse(s); } catch { bad('not JSON'); }
  members(v, 'format', 'log', 'source', 'file', 'generation', 'root', 'chain', 'from', 'entries', 'map', 'checkpoint', 'commitment',
    'last', 'current', 'first', 'before', 'pinned', 'sealed', 'earlier', 'replaced', ...(v && Object.hasOwn(v, 'loss') ? ['loss'] : []));
  if (v.format !== 'nextcloud-audit/proof/1') bad('format');
  if (JSON.stringify(v) + '\n' !== s) bad('not canonical');
  const wf = (x) => { if (typeof x === 'string') { if (!x.isWellFormed()) bad('lone surrogate'); }
    else if (x && typeof x === 'object') for (const [k, y] of Object.entries(x)) { wf(k); wf(y); } };
  wf(v);
  checkForm(v);
  const p = { log: logName(v.log), source: sourceId(v.source), file: decimal(v.file), generation: decimal(v.generation),
    root: b32(v.root), chain: b32(v.chain), from: decimal(v.from), rawEntries: v.entries };
  if (p.from >= 16384n) bad('seq');
  const lazy = (name, get) => { let done = false, value;
    Object.defineProperty(p, name, { get() { if (!done) { value = get(v[name]); done = true; } return value; } }); };
  lazy('entries', (x) => list(x, 16384, parseStep));
  lazy('map', (m) => { const r = { root: b32(m.root), seq: decimal(m.seq), head: b32(m.head), index: decimal(m.index), siblings: mapSiblings(m.siblings) };
    if (r.seq >= 16384n) bad('seq'); return r; });
  lazy('checkpoint', parseNote);
  lazy('commitment', (x) => hashes(x, 63));
  lazy('last', (x) => hashes(x, 63));
  lazy('current', (x) => orNull(x, (c) => { members(c, 'index', 'hashes'); return { index: decimal(c.index), hashes: hashes(c.hashes, 63) }; }));
  lazy('first', (x) => orNull(x, noteAndHashes));
  lazy('before', (x) => orNull(x, noteAndHashes));
  lazy('pinned', (x) => orNull(x, sizeAndHashes));
  lazy('sealed', (x) => orNull(x, sizeAndHashes));
  lazy('earlier', (x) => list(x, 1024, earlierItem));
  lazy('replaced', (x) => list(x, 64, replacedItem));
  lazy('loss', (x) => (x === undefined ? null : lossOf(x)));
  return p;
}
function logName(s) {
  jsonText(s);
  const m = /^([^+]+)\+[0-9a-f]{64}$/s.exec(s);
  if (!m) bad('log name');
  keyName(m[1]);
  return s;
}
function sourceId(s) { if (typeof s !== 'string' || !/^[a-z0-9._:-]{1,128}$/.test(s)) bad('source id'); return s; }

// ---------------------------------------------------------------- 4 and 5 the chain
const VERSIONS = new Set(['created', 'adopted', 'copied', 'written', 'restored', 'reverted', 'altered']);
const CARRIES = new Set([...VERSIONS, 'moved', 'touched', 'closed']);
const chainId = (blinding, source, file, generation) =>
  createHmac('sha3-256', blinding).update(cat(tag('chain-id'), text(source), u64(file), u64(generation))).digest();
const link = (head, chain, e) => H('link', head, chain, u64(e.seq), e.d);
function heads(entries, p) {
  const out = [];
  let h = H('genesis', text(p.log), p.root, p.chain);
  for (const e of entries) out.push(h = link(h, p.chain, e));
  return out;
}
const ownerMessage = (label, p, chain) => cat(tag(label), text(p.log), text(p.source), p.root, u64(p.file), chain);
const closeValid = (owner, p, chain, before, e) => signed(owner, cat(ownerMessage('close', p, chain), before, e.unsignedBytes), e.signature);

const eqContent = (a, b) => a.size === b.size && same(a.digest, b.digest);
const eqPath = (a, b) => same(a, b);
const taintKey = (t) => `${t.chain.toString('hex')}/${t.seq}`;

/** Runs the rules of 4.2-4.5 and 5. inherited: taints that stand from the start. Throws the string 'illegal'. */
function replay(entries, headList, p, owner, pred) {
  const illegal = (why) => { const x = new Error(why); x.illegal = true; throw x; };
  const need = (ok, why) => { if (!ok) illegal(why); };
  const s = { state: 'new', version: -1, content: undefined, path: undefined, taints: new Map(), listed: new Map(), stood: new Map(), ever: new Set(),
    erased: new Set(), expired: new Set(), versions: new Set(), seals: [], altered: new Set() };
  const full = (t) => `${taintKey(t)}/${t.kind}`;
  const addTaint = (t) => { s.taints.set(full(t), t); s.listed.set(full(t), t); s.stood.set(taintKey(t), t); s.ever.add(full(t)); };
  const mends = new Map(), accepted = new Set();           // altered seq -> [t, r] that its clearing rests on; pairs accepted by seals
  const own = (seq) => ({ chain: p.chain, seq: BigInt(seq), kind: 'altered' });
  const clear = (pred) => { for (const to of [s.taints, s.listed]) for (const [k, t] of to) if (pred(t)) to.delete(k); };
  const versionAt = [];                                      // after each seq
  const deletedAt = [];
  // undefined = not shown: not checkable, counts as kept (4.3)
  const rule = (part, want, current, equal, what) => {
    if (part === undefined) return;
    if (want === 'none') return need(part === null, `${what} not empty`);
    need(part !== null, `${what} empty`);
    if (want === 'any' || current === undefined) return;
    need(equal(part, current) === (want === 'same'), `${what} not ${want}`);
  };
  for (const e of entries) {
    const i = Number(e.seq), [content, path, context] = e.parts;
    const parts = (c, q) => { rule(content, c, s.content, eqContent, 'content'); rule(path, q, s.path, eqPath, 'path'); };
    const states = (...ok) => need(ok.includes(s.state), `${e.op} while ${s.state}`);
    if (i === 16383) need(e.op === 'closed', 'seq 16383 is not closed');
    switch (e.op) {
      case 'created': case 'copied':
        states('new'); parts('any', 'any'); need(!pred && p.generation === 0n, `${e.op}, though something came before`);
        if (e.op === 'copied') need(context === undefined || context.has(2), 'copied from what');
        s.state = 'live';
        break;
      case 'adopted': {
        states('new'); parts('any', 'any');
        const a = e.predecessor;
        if (pred || a || p.generation > 0n) {                // 4.5
          if (!pred || !a || !same(a.chain, pred.chain) || a.seq !== pred.step.seq || !same(a.head, pred.head)) {
            const x = new Error('predecessor'); x.predecessor = true; throw x;
          }
          const [pc, pp] = pred.step.parts;
          if (pc && content) need(eqContent(pc, content), 'not the content that was closed');
          if (pp && path) need(eqPath(pp, path), 'not the path that was closed');
          for (const t of pred.step.taints) addTaint(t);
          if (pred.foreign || !pred.step.signature) addTaint({ chain: pred.chain, seq: pred.step.seq, kind: 'unsigned-close' });
        }
        s.state = 'live';
        break;
      }
      case 'written': states('live'); parts('any', 'same'); break;
      case 'moved': states('live'); parts('same', 'another'); break;
      case 'touched': states('live'); parts('same', 'same'); break;
      case 'restored': states('deleted'); need(!s.expired.has(s.version), 'restored what has expired'); parts('same', 'any'); s.state = 'live'; break;
      case 'reverted': {
        states('live');
        const t = Number(e.target);
        need(e.target < e.seq && s.versions.has(t) && t < s.version && !s.expired.has(t), 'reverted to what');
        const old = entries[t].parts[0];
        rule(content, 'same', old === null ? undefined : old, eqContent, 'content');
        rule(path, 'same', s.path, eqPath, 'path');
        for (const a of s.altered) if (t < a && !mends.has(a) && !s.erased.has(`${t}/0`)) {
          mends.set(a, [t, i]);                                // the first one since it last stood, by the steps alone
          s.listed.delete(full(own(a)));
          if (content !== undefined && old !== undefined) s.taints.delete(full(own(a)));
        }
        for (const [a, [, by]] of mends) if (a <= t && t < by) {   // back to what the mending had left behind
          mends.delete(a);
          if (!accepted.has(taintKey(own(a)))) for (const to of [s.taints, s.listed]) to.set(full(own(a)), own(a));
        }
        break;
      }
      case 'altered': states('live'); parts('another', 'same'); addTaint(own(i)); s.altered.add(i); break;
      case 'deleted': states('live'); parts('none', 'none'); s.state = 'deleted'; break;
      case 'gap': states('live'); parts('none', 'none'); addTaint({ chain: p.chain, seq: e.seq, kind: 'gap' }); break;
      case 'expired':
        states('live', 'deleted'); parts('none', 'none');
        for (const q of e.seqs.map(Number)) {
          need(s.versions.has(q) && !s.expired.has(q), 'expired what');
          need(s.state !== 'live' || q !== s.version, 'expired the current version');
          s.expired.add(q);
        }
        break;
      case 'erased': {
        states('live', 'deleted'); parts('none', 'none');
        const k = `${e.target}/${e.part}`;
        need(e.target < e.seq && !s.erased.has(k), 'erased what');
        need(!(s.state === 'live' && e.part === 0 && Number(e.target) >= s.version), 'erased the current content');
        if (e.part === 0) for (const [a, rest] of mends)
          need(accepted.has(taintKey(own(a))) || !rest.includes(Number(e.target)), 'erased what mended an alteration');
        s.erased.add(k);
        break;
      }
      case 'sealed': {
        states('live', 'deleted'); parts('none', 'none');
        const x = e.seal, q = Number(x.seq);
        need(x.seq < e.seq, 'sealed seq');
        need(same(x.head, headList[q]), 'seal: head');
        const carrier = entries.slice(0, q + 1).findLast((y) => CARRIES.has(y.op));
        need(same(x.commitment, carrier.commitments[0]), 'seal: commitment');
        const newest = entries.slice(0, q + 1).findLast((y) => y.op === 'sealed');
        need(same(x.newest, newest ? newest.d : ZERO32), 'seal: newest seal');
        need(!deletedAt[q], 'seal: deleted');
        const prior = s.seals.at(-1)?.seal;
        need(!prior || (x.seq > prior.seq && x.treeSize >= prior.treeSize), 'seal: not newer');
        need(versionAt[q] <= Number(x.from) && x.from <= x.seq, 'seal: checked from');
        for (const a of x.accepts)
          need(s.stood.has(taintKey(a)) && (!same(a.chain, p.chain) || a.seq <= x.seq), 'seal: accepts');
        need(signed(owner, cat(ownerMessage('seal', p, p.chain), x.body), x.signature), 'seal: signature');
        for (const a of x.accepts) accepted.add(taintKey(a));
        clear((t) => accepted.has(taintKey(t)));
        s.seals.push(e);
        break;
      }
      case 'closed': {
        if (e.reason !== 7) states('live', 'deleted'); else states('live', 'deleted', 'closed');
        const lost = e.reason === 7;                           // after a loss nothing is compared (4.6)
        if (lost) need((content === null) === (path === null), 'closed: content or path alone');
        else if (s.state === 'deleted') parts('none', 'none'); else parts('same', 'same');
        const order = (a, b) => Buffer.compare(a.chain, b.chain) || Number(a.seq - b.seq);
        const standing = [...s.listed.values()].sort(order).slice(0, 1024).map(full);
        need(lost || standing.join() === e.taints.map(full).join(), 'closed: taints');
        need(lost || s.listed.size <= 1024 || !e.signature, 'closed: signed, and its list is cut');
        if (e.signature) need(closeValid(owner, p, p.chain, headList[i - 1], e), 'closed: signature');
        s.state = 'closed';
        break;
      }
    }
    if (CARRIES.has(e.op) && s.state !== 'closed') {         // the chain's current parts (4.2)
      if (VERSIONS.has(e.op)) s.content = content ?? undefined; else if (s.content === undefined) s.content = content ?? undefined;
      s.path = path ?? undefined;
    }
    if (VERSIONS.has(e.op)) { s.version = i; s.versions.add(i); }
    versionAt.push(s.version);
    deletedAt.push(s.state === 'deleted');
  }
  // opening-missing (10)
  const missing = (e) => e.openings.map((o, i) => o === null && !s.erased.has(`${e.seq}/${i}`));
  s.missing = entries.some((e) => missing(e).some(Boolean));
  s.missingContent = entries.some((e) => missing(e)[0]);
  s.current = s.version >= 0 ? entries[s.version] : null;
  return s;
}

// ---------------------------------------------------------------- 9 verification
const RANK = { VERIFIED: 0, 'NOT PROVEN': 1, CHANGED: 2, FORK: 3 };
class Findings {
  constructor() { this.list = []; this.steps = new Map(); }
  add(step, verdict, reason, why) { this.list.push({ step, verdict, reason, why }); this.steps.set(step, true); }
  has(...steps) { return steps.some((s) => this.steps.has(s)); }
  result() {
    let verdict = 'VERIFIED';
    for (const f of this.list) if (RANK[f.verdict] > RANK[verdict]) verdict = f.verdict;
    return { verdict, reasons: [...new Set(this.list.map((f) => f.reason))], findings: this.list };
  }
}

export function verifyCase(c) {
  const f = new Findings();
  try { return run(c, f); } catch (e) {
    if (!(e instanceof Malformed)) throw e;
    if (f.list.some((x) => x.verdict === 'FORK')) return f.result();
    return { verdict: 'MALFORMED', reasons: ['malformed'], findings: [{ why: e.message }] };
  }
}

function run(c, f) {
  const { trust, question, memory } = c;
  // configuration
  const wp = parsePolicy(trust.policy, false), ap = parsePolicy(trust.auditors, true);
  checkPolicyPair(wp, ap);
  logName(trust.log); sourceId(trust.source);
  const owner = b32(trust.owner);
  if (!goodKey(owner)) bad('owner key');
  const blinding = trust.blinding == null ? null : b32(trust.blinding);
  const q = {
    now: decimal(question.now), path: question.path ?? null, file: orNull(question.file ?? null, decimal),
    size: orNull(question.size ?? null, decimal), digest: orNull(question.sha3_256 ?? null, b32),
    maxAge: question.max_age == null ? 604800n : decimal(question.max_age),
    asOf: question.as_of ?? null, requireSeal: question.require_seal === true,
  };
  if (q.path === null && q.file === null) bad('neither path nor file id is asked');
  if (q.asOf !== null && q.asOf !== 'proof') q.asOf = decimal(q.asOf);
  const asOf = q.asOf !== null;
  const firstOrigin = trust.log.slice(0, trust.log.lastIndexOf('+'));
  const N = 'NOT PROVEN';
  const p = parseProof(c.proof);
  let storedProof;
  const stored = () => (storedProof ??= memory?.chain == null ? null : parseProof(memory.chain));
  const knownFile = memory?.path_file == null ? null : decimal(memory.path_file);
  const knownChain = memory?.path_chain == null ? null : parseProof(memory.path_chain);
  const knownGeneration = knownChain === null ? 0n : knownChain.generation;
  const done = () => {
    const r = f.result();
    r.memory = { checkpoint: memory?.checkpoint ?? null, chain: memory?.chain ?? null, path_file: memory?.path_file ?? null };
    return r;
  };
  // A step returns at its first finding: [verdict, reason, why] or undefined.
  const step = (n, body) => { const x = body(); if (x) f.add(n, ...x); return !!x; };
  const g = Number(p.generation);
  const contentAlone = !blinding && q.path === null;         // 9: paths and contexts are the owner's to know

  // 1 completion, names
  let entries = null;
  if (step(1, () => {
    if (p.from > 0n) {                                       // 10.3
      const o = stored();
      if (!o || !same(o.chain, p.chain) || !same(o.root, p.root) || o.from !== 0n || BigInt(o.entries.length) < p.from) return [N, 'incomplete'];
    }
    if (p.log !== trust.log) return [N, 'other-log'];
    if (p.source !== trust.source) return [N, 'other-source'];
    if (q.file !== null && p.file !== q.file) return [N, 'other-file'];
    if (blinding) {
      if (!same(p.root, H('root', owner, blinding))) return [N, 'not-owner'];
      if (!same(p.chain, chainId(blinding, p.source, p.file, p.generation))) return [N, 'other-chain'];
    }
  })) return done();

  // 2 the log's signature
  const pinNote = memory?.checkpoint == null ? null : parseNote(memory.checkpoint);
  const pin = pinNote && openNote(pinNote, wp, pinNote.origin);
  const origin = p.checkpoint.origin;                        // of this tree: the first one, or one after declared losses
  const note = openNote(p.checkpoint, wp, origin);
  const lost = [];                                           // notes of the origins before, the newest first
  const openLost = () => {                                   // 6.5
    if ((origin === firstOrigin) !== (p.loss === null)) return [N, 'unknown-log'];
    if (!p.loss) return;
    let after = origin;
    for (const d of p.loss.declared) {
      if (!wp.logs.some((k) => k.name === after && same(k.raw, d.key))) return [N, 'loss-note', 'key'];
      const old = openNote(d.note, wp, d.note.origin);
      if (noteFault(old, wp, old.origin) || old.origin === after) return [N, 'loss-note', 'note'];
      const message = lossMessage(d, after);
      const signers = wp.logs.filter((k) => k.name === old.origin && d.note.lines.some((l) => l.name === k.name && l.id === k.id));
      if (!signers.some((k) => signed(k.raw, message, d.signature))) return [N, 'loss-note', 'signature'];
      lost.push(old);
      after = old.origin;
    }
    if (after !== firstOrigin || new Set([origin, ...lost.map((x) => x.origin)]).size !== lost.length + 1) return [N, 'loss-note', 'chain'];
    if (!inclusion(cat(u8(4), sha3(lossFile(JSON.parse(c.proof).loss.declared))), 0n, note.size, p.loss.hashes, note.root)) return [N, 'broken-proof', 'loss'];
    if (!lost.every((x) => hasQuorum(x, wp, q.now))) return [N, 'loss-note', 'quorum'];
  };
  if (step(2, () => {
    const fault = noteFault(note, wp, origin);
    if (fault) return [N, fault];
    const unknown = pin && memory.checkpoint !== JSON.parse(c.proof).checkpoint && noteFault(pin, wp, pin.origin);
    if (unknown) return [N, unknown, 'pinned'];
    if (pin && pin.signed && pin.origin === origin && pin.size === note.size && !same(pin.root, note.root)) return ['FORK', 'fork', 'two-roots'];
    return openLost();
  })) return done();

  // 3 witnesses, 4 auditors
  const witnessed = hasQuorum(note, wp, q.now);
  step(3, () => (note.badLine ? [N, 'bad-signature'] : !witnessed ? [N, 'unwitnessed'] : wp.quorum.ov === 0 ? [N, 'weak-policy'] : undefined));
  const audited = openNote(p.checkpoint, ap, origin);
  step(4, () => {
    if (audited.badLine) return [N, 'bad-signature'];
    if (!hasQuorum(audited, ap, q.now) || ap.quorum.q === 0) return [N, 'not-replayed'];
  });

  // 5 the pinned tree
  const elsewhere = pin !== null && pin.origin !== origin;
  const before = elsewhere ? lost.find((x) => x.origin === pin.origin) : undefined;
  const smaller = pin !== null && !elsewhere && note.size < pin.size;
  step(5, () => {
    const shown = p.pinned;
    if (!pin) return;
    if (elsewhere) {
      const o = stored();
      if (!before && o?.loss && p.loss) {                    // 9.1 two-successors
        const one = o.loss.declared[0], other = p.loss.declared[0], then = o.checkpoint.origin;
        const signedBy = (d, after) => d.note.origin !== after && d.note.size > 0n && !noteFault(openNote(d.note, wp, d.note.origin), wp, d.note.origin) &&
          wp.logs.some((k) => k.name === d.note.origin && d.note.lines.some((l) => l.name === k.name && l.id === k.id) &&
            signed(k.raw, lossMessage(d, after), d.signature));
        if (one.note.origin === other.note.origin && (then !== origin || !same(one.key, other.key)) && signedBy(one, then) && signedBy(other, origin))
          return ['FORK', 'fork', 'two-successors'];
      }
      if (!before) return asOf ? undefined : [N, 'unconnected', 'origin'];
      if (before.size === pin.size && !same(before.root, pin.root)) return ['FORK', 'fork', 'two-roots'];
      return pin.size > before.size ? [N, 'loss-hides'] : undefined;
    }
    if (smaller) {
      const pinAudited = openNote(pinNote, ap, origin);
      const later = (a, b, keys) => keys.some((k) => a.each.has(k) && b.each.has(k) && a.each.get(k) > b.each.get(k));
      if (later(note, pin, wp.witnesses) || later(audited, pinAudited, ap.witnesses)) return ['FORK', 'fork', 'rolled-back'];
      return asOf ? undefined : [N, 'stale', 'smaller tree'];
    }
    if (note.size === pin.size) return same(note.root, pin.root) ? undefined : [N, 'broken-proof', 'pinned'];
    if (!shown || shown.size !== pin.size) return [N, 'unconnected'];
    if (!consistency(pin.size, pin.root, note.size, note.root, shown.hashes)) return [N, 'broken-proof', 'pinned'];
  });
  const connected = !f.has(5) && !smaller && !(elsewhere && !before);

  // 6, 7 map
  if (step(6, () => {
    if (!inclusion(cat(u8(2), p.map.root), note.size - 1n, note.size, p.commitment, note.root)) return [N, 'broken-proof', 'commitment'];
  })) return done();
  if (step(7, () => {
    if (!presence(p.chain, mapValue(p.map.seq, p.map.head, p.map.index), p.map.siblings, p.map.root)) return [N, 'broken-proof', 'map'];
  })) return done();

  // 8 earlier generations, the newest first; one under another root may come last
  const first = () => (p.from > 0n ? stored().rawEntries : p.rawEntries)[0];
  if (step(8, () => {
    const n = p.earlier.length;
    if (BigInt(n) !== p.generation && BigInt(n) !== p.generation + 1n) return [N, 'generations', 'count'];
    for (const [k, x] of p.earlier.entries()) {
      x.foreign = k >= g;
      if (!x.foreign && blinding && !same(x.chain, chainId(blinding, p.source, p.file, BigInt(g - 1 - k)))) return [N, 'generations', 'chain id'];
      if (!opens(x.step)) return ['CHANGED', 'history', 'earlier opening'];
      x.step.parts;                                          // decoded now
      if (k === 0 && x.step.openings.some((o, i) => o === null && first() && !(contentAlone && i > 0) && (i === 2 || first()[1 + i] !== null))) return [N, 'opening-missing'];
      x.head = link(x.before, x.chain, x.step);
      if (!presence(x.chain, mapValue(x.step.seq, x.head, x.index), x.siblings, p.map.root)) return [N, 'broken-proof', 'earlier'];
      if (x.step.op !== 'closed') return [N, 'generations', 'not closed'];
      if (!x.foreign && x.step.signature && !closeValid(owner, p, x.chain, x.before, x.step)) return ['CHANGED', 'illegal', 'closing signature'];
    }
  })) return done();

  entries = p.from > 0n ? [...stored().entries.slice(0, Number(p.from)), ...p.entries] : p.entries;
  // 9 the history
  let s, hs;
  if (step(9, () => {
    if (!entries.every(opens)) return ['CHANGED', 'history', 'opening'];
    if (BigInt(entries.length) !== p.map.seq + 1n || entries.some((e, i) => e.seq !== BigInt(i))) return ['CHANGED', 'history', 'seq'];
    hs = heads(entries, p);
    if (!same(hs.at(-1), p.map.head)) return ['CHANGED', 'history', 'head'];
    try { s = replay(entries, hs, p, owner, p.earlier[0] ?? null); } catch (e) {
      if (e.predecessor) return [N, 'predecessor'];
      if (e.illegal) return ['CHANGED', 'illegal', e.message];
      throw e;
    }
    const leafOf = (i) => entryLeaf(p.chain, BigInt(i), i === 0 ? hs[0] : entries[i].d);
    const lastSeq = entries.length - 1;
    if (!inclusion(leafOf(lastSeq), p.map.index, note.size, p.last, note.root)) return [N, 'broken-proof', 'last'];
    if (s.version === lastSeq) { if (p.current !== null) bad('current is the last leaf'); return; }
    if (p.current === null) return [N, 'broken-proof', 'current null'];
    if (!inclusion(leafOf(s.version), p.current.index, note.size, p.current.hashes, note.root)) return [N, 'broken-proof', 'current'];
  })) return done();

  // 10 openings and taints
  step(10, () => {
    const all = [...s.taints.values()];
    for (const kind of ['altered', 'gap', 'unsigned-close'])
      if (all.some((t) => t.kind === kind)) return [kind === 'altered' ? 'CHANGED' : N, kind];
  });

  step(10, () => {
    if (lost.length && !(s.seals.length && p.sealed)) return [N, 'declared-loss'];
  });

  step(10, () => {
    if (contentAlone ? s.missingContent : s.missing) return [N, 'opening-missing'];
  });

  // 11 what was seen before
  const kept = (o) => {                                      // its last leaf, through all losses since
    if (o.checkpoint.origin === origin) return true;
    const from = lost.findIndex((x) => x.origin === o.checkpoint.origin);
    if (from >= 0) for (const [i, d] of (o.loss ? o.loss.declared : []).entries()) {        // losses before, as they were declared
      const now = p.loss.declared[from + 1 + i];
      if (now && !same(lossMessage(d, ''), lossMessage(now, ''))) return null;
    }
    let index = o.map.index;
    for (let i = from; i >= 0; i--) {
      if (index >= p.loss.declared[i].kept) return false;
      if (lost[i].origin === firstOrigin) index += 1n;
    }
    return from >= 0;
  };
  step(11, () => {
    const o = stored();
    if (!o || o.file !== p.file || o.source !== p.source || o.log !== p.log) return;
    const gaveUp = (y) => {                                  // 4.7, in a generation of this root that the stored proof did not know
      const up = y.step.gaveUp;
      return up && same(up.chain, o.chain) && (up.seq > o.map.seq || (up.seq === o.map.seq && same(up.head, o.map.head))) &&
        !o.earlier.some((z) => same(z.step.bytes, y.step.bytes));
    };
    if (p.earlier.slice(0, Number(p.generation)).some(gaveUp)) return;
    if (same(o.chain, p.chain)) {
      const old = heads(o.entries, o), shared = Math.min(old.length, hs.length);
      if (old.slice(0, shared).some((h, i) => !same(h, hs[i]))) return asOf && smaller && o.checkpoint.origin === origin ? ['FORK', 'fork', 'two-histories'] : ['CHANGED', 'pinned'];
      if (old.length > hs.length && connected) return ['CHANGED', 'pinned', 'entries missing'];
      return;
    }
    if (!same(o.root, p.root)) return;
    const x = p.earlier.find((y) => same(y.chain, o.chain));
    if (x) {
      if (connected && kept(o) === null) return ['FORK', 'fork', 'two-successors'];
      if (connected && !kept(o)) return ['CHANGED', 'pinned', 'declared lost'];
      if (x.step.seq <= o.map.seq || (x.step.seq === o.map.seq + 1n && !same(x.before, o.map.head))) return ['CHANGED', 'pinned', 'earlier generation'];
    } else if (same(o.root, p.root) && !(asOf && !connected)) return [N, o.generation >= p.generation ? 'stale' : 'generations', 'not the generation that is known'];
  });
  

  // 12 seals
  const newestSeal = s.seals.at(-1)?.seal;
  step(12, () => {
    if (newestSeal && lost.length && !p.sealed) { /* a seal of an origin before: step 10 */ } else if (newestSeal) {
      if (!p.sealed || p.sealed.size !== newestSeal.treeSize) return [N, 'seal-tree'];
      if (!consistency(newestSeal.treeSize, newestSeal.treeRoot, note.size, note.root, p.sealed.hashes)) return [N, 'broken-proof', 'sealed'];
    } else if (p.sealed) return [N, 'seal-tree', 'no seal'];
    if (q.requireSeal && !(newestSeal && Number(newestSeal.seq) >= s.version)) return [N, 'unsealed'];
    if (!blinding && !newestSeal) return [N, 'not-owner'];
  });

  // 13 state and path
  const left = (x, asked) => {
    if (!blinding || x.generation !== knownGeneration || !x.steps.length) return 'other-file-id';
    if (!x.steps.every(opens)) return 'history';
    const chain = chainId(blinding, p.source, x.file, x.generation);
    if (knownChain && connected && !kept(knownChain)) return 'other-file-id';
    let head = x.before;
    for (const [i, e] of x.steps.entries()) {
      if (e.seq !== x.steps[0].seq + BigInt(i)) return 'other-file-id';
      head = link(head, chain, e);
      if (e.op === 'gap') return 'other-file-id';
      if (e.op !== 'closed' && (e.parts[1] === undefined || (e.parts[1] ? same(e.parts[1], asked) : CARRIES.has(e.op)))) return 'other-file-id';
    }
    const start = x.steps[0], last = x.steps.at(-1);
    if (!['deleted', 'closed'].includes(start.op) && !(start.parts[1] && CARRIES.has(start.op))) return 'other-file-id';
    if (!presence(chain, mapValue(last.seq, head, x.index), x.siblings, p.map.root)) return 'broken-proof';
    if (!x.steps.some((e) => e.op === 'closed')) return null;
    if (x.next === null) return 'other-file-id';
    return absence(chainId(blinding, p.source, x.file, x.generation + 1n), x.next, p.map.root) ? null : 'broken-proof';
  };
  step(13, () => {
    const replaced = p.replaced;
    if (s.state !== 'live') return [N, s.state];
    if (q.path === null) return;
    if (s.path === undefined) return [N, 'path-erased'];
    const asked = utf8(q.path);
    if (!same(s.path, asked)) return [N, 'other-path'];
    if (knownFile === null || knownFile === p.file) return;
    const shown = replaced.find((x) => x.file === knownFile);
    const why = shown ? left(shown, asked) : 'other-file-id';
    if (why) return [why === 'history' ? 'CHANGED' : N, why];
  });

  // 14 bytes
  step(14, () => {
    if (s.state !== 'live' || (q.size === null && q.digest === null)) return;
    if (!s.content) return [N, 'opening-missing'];
    if ((q.size !== null && q.size !== s.content.size) || (q.digest && !same(q.digest, s.content.digest))) return ['CHANGED', 'bytes'];
  });

  // 15 times
  const T = noteTimes(note, wp, q.now);
  step(15, () => {
    let notLater = T.notLater;
    if (!witnessed || wp.quorum.ov === 0) return;
    const brackets = ['first', 'before'].filter((name) => p[name]).map((name) => {
      const n = openNote(p[name].note, wp, origin);
      return [name, p[name], n, noteFault(n, wp, origin, true)];
    });
    for (const [, , n, fault] of brackets)
      for (const other of fault ? [] : [note, pin])
        if (n.signed && other && other.signed && other.origin === n.origin && other.size === n.size && !same(other.root, n.root)) return ['FORK', 'fork', 'two-roots'];
    for (const [name, , , fault] of brackets) if (fault) return [N, fault, name];
    for (const [name, x, n] of brackets) {
      if (!consistency(n.size, n.root, note.size, note.root, x.hashes)) return [N, 'broken-proof', name];
      if (n.badLine) return [N, 'bad-signature', name];
      if (!hasQuorum(n, wp, q.now)) return [N, 'unwitnessed', name];
      if (name === 'first' && n.size > p.map.index) {
        const t = noteTimes(n, wp, q.now).notLater;
        if (t !== undefined && (notLater === undefined || t < notLater)) notLater = t;
      }
    }
    if (notLater !== undefined && entries.some((e) => e.recorded > notLater + 300n)) return [N, 'clock'];
    if (q.asOf === 'proof') return;
    if (asOf) { if (T.newest === undefined || !(notLater <= q.asOf && q.asOf <= T.newest)) return [N, 'as-of']; }
    else if (T.newest === undefined || q.now - T.newest > q.maxAge) return [N, 'stale'];
  });

  const r = done();
  if (!asOf) {                                               // 10.2
    if (!f.has(1, 2, 3, 5) && !audited.badLine && !(pin && !elsewhere && pin.size === note.size)) r.memory.checkpoint = JSON.parse(c.proof).checkpoint;
    if (r.verdict === 'VERIFIED') {
      const whole = JSON.parse(c.proof);
      if (p.from > 0n) { whole.entries = [...JSON.parse(memory.chain).entries.slice(0, Number(p.from)), ...whole.entries]; whole.from = '0'; }
      r.memory.chain = JSON.stringify(whole) + '\n';
      if (q.path !== null) r.memory.path_file = p.file.toString();
    }
  }
  return r;
}
