// Evidence files, after the text of SPEC 9.1, on top of verifier.mjs. Its author knew the first verifier: what was asked of the text
// came from judging changed files with both.
import {
  H, Malformed, ZERO32, absence, b32, bad, base64, cat, consistency, decimal, entryBytes, hashes, inclusion, leafHash, list, logKey, lossMessage,
  mapValue, members, nodeHash, openNote, orNull, parseNote, parseProof, presence, same, signed, text, u64, utf8, vkey,
} from './verifier.mjs';

class Nothing extends Error {}
const nothing = (why) => { throw new Nothing(why); };
const MIB = 1024 * 1024;
const MEMBERS = { 'two-roots': ['notes'], 'other-prefix': ['notes', 'root', 'hashes'], 'rolled-back': ['notes'], 'two-histories': ['proofs'],
  'two-successors': ['declared'], 'changed-leaf': ['declared', 'notes', 'index', 'leaves', 'paths'],
  'broken-replay': ['note', 'size', 'peaks', 'leaves', 'hashes', 'chains'] };

/** What a case's file convicts the log of: 'fork', 'rollback', 'chain-broken', 'map-wrong', 'NOTHING' or 'MALFORMED'. */
export function judgeCase(c) {
  try {
    const reader = { logs: [vkey(c.log, 1)], witnesses: c.cosigners.map((k) => vkey(k, 4)) };
    return judge(parseEvidence(c.evidence), reader);
  } catch (e) {
    if (e instanceof Nothing) return 'NOTHING';
    if (e instanceof Malformed) return 'MALFORMED';
    throw e;
  }
}

function parseEvidence(s) {
  if (!s.isWellFormed()) bad('not UTF-8');
  let v;
  try { v = JSON.parse(s); } catch { bad('not JSON'); }
  if (typeof v !== 'object' || v === null || v.format !== 'nextcloud-audit/evidence/1') bad('format');
  if (!Object.hasOwn(MEMBERS, v.kind)) bad('kind');
  members(v, 'format', 'kind', 'seen', ...MEMBERS[v.kind]);
  if (utf8(s).length > (v.kind === 'two-histories' ? 80 : 16) * MIB) bad('too long');
  if (JSON.stringify(v) + '\n' !== s) bad('not canonical');
  decimal(v.seen);
  const two = (x) => (Array.isArray(x) && x.length === 2 && x.every((t) => typeof t === 'string') ? x : bad('want two'));
  const e = { kind: v.kind };
  const some = (x, n) => (Array.isArray(x) && x.length === n ? x : bad(`want ${n}`));
  if (v.kind === 'two-successors') e.declared = some(v.declared, 2).map(declaration);
  else if (v.kind === 'changed-leaf') {
    e.notes = two(v.notes).map((n) => parseNote(n, true)); e.declared = some(v.declared, 1).map(declaration);
    e.index = decimal(v.index); e.leaves = some(v.leaves, 3).map(base64); e.paths = some(v.paths, 3).map((p) => hashes(p, 63));
    if (e.leaves.some((leaf) => leaf.length > 65535)) bad('leaf too long');
  } else if (v.kind === 'two-histories') e.proofs = two(v.proofs).map(wholeProof);
  else if (v.kind === 'broken-replay') {
    e.note = parseNote(v.note); e.size = decimal(v.size); e.peaks = hashes(v.peaks, 63); e.hashes = hashes(v.hashes, 63);
    e.leaves = list(v.leaves, 262144, base64);
    if (e.leaves.some((leaf) => leaf.length > 65535)) bad('leaf too long');
    e.chains = list(v.chains, 262144, chain);
    for (let i = 1; i < e.chains.length; i++) if (Buffer.compare(e.chains[i - 1].key, e.chains[i].key) >= 0) bad('chains not ascending');
  } else {
    e.notes = two(v.notes).map((n) => parseNote(n, true));
    if (v.kind === 'other-prefix') { e.root = b32(v.root); e.hashes = hashes(v.hashes, 63); }
  }
  return e;
}
function declaration(x) {
  members(x, 'origin', 'note', 'key', 'kept', 'signature');
  const signature = base64(x.signature);
  if (signature.length !== 64) bad('signature');
  if (typeof x.origin !== 'string' || !x.origin || utf8(x.origin).length > 255 || /[\u0000-\u001f\u007f]/.test(x.origin)) bad('origin');
  return { origin: x.origin, raw: x.note, note: parseNote(x.note), key: b32(x.key), kept: decimal(x.kept), signature };
}
function wholeProof(s) {
  const parsed = parseProof(s);
  return { parsed, note: parsed.checkpoint, entries: JSON.parse(s).entries };
}
function chain(v) {
  members(v, 'chain', 'held', 'other', 'siblings');
  const held = orNull(v.held, (h) => { members(h, 'seq', 'head', 'index'); return { seq: decimal(h.seq), head: b32(h.head), index: decimal(h.index) }; });
  if (held && held.seq >= 16384n) bad('seq');
  const other = orNull(v.other, (o) => { const b = base64(o); if (b.length !== 64) bad('other'); return { key: b.subarray(0, 32), value: b.subarray(32) }; });
  if (held && other) bad('held and other');
  const siblings = hashes(v.siblings, 256);
  if (siblings.length && same(siblings[0], ZERO32)) bad('empty deepest sibling');
  return { key: b32(v.chain), held, other, siblings };
}

function opened(note, reader) {                              // 9.1: signed by a key that the reader brings
  const n = openNote(note, { logs: reader.logs, witnesses: [] }, reader.logs[0].name);
  if (n.origin !== reader.logs[0].name) nothing('unknown-log');
  if (!n.logLine) nothing('unsigned');
  if (n.badLog) nothing('bad-signature');
  return n;
}

function openDeclared(d, reader) {                            // 6.5
  const n = opened(d.note, reader);
  if (n.size === 0n || n.origin === d.origin || !signed(reader.logs[0].raw, lossMessage(d, d.origin), d.signature)) nothing('loss-note');
  return n;
}
function twoSuccessors({ declared }, reader) {
  for (const d of declared) openDeclared(d, reader);
  const [a, b] = declared;
  return a.origin === b.origin && same(a.key, b.key) && a.kept === b.kept ? nothing('no-contradiction') : 'fork';
}
const newKey = (d) => { try { return logKey(d.origin, d.key); } catch (e) { return e instanceof Malformed ? nothing('loss-note') : bad('key'); } };
function changedLeaf({ declared: [d], notes, index, leaves: [first, was, now], paths }, reader) {
  const lost = openDeclared(d, reader);
  const old = opened(notes[0], reader);
  const tree = opened(notes[1], { logs: [newKey(d)] });
  if (old.origin !== lost.origin) nothing('no-contradiction');
  const place = index + (first[0] === 4 ? 0n : 1n);
  const shown = [[first, 0n, old], [was, index, old], [now, place, tree]];
  shown.forEach(([leaf, at, n], i) => { if (!inclusion(leaf, at, n.size, paths[i], n.root)) nothing('broken-proof'); });
  if (place === 0n || index >= d.kept || same(was, now) || (was[0] === 2 && now[0] === 2)) nothing('no-contradiction');
  return 'chain-broken';
}

function judge(e, reader) {
  if (e.kind === 'two-successors') return twoSuccessors(e, reader);
  if (e.kind === 'changed-leaf') return changedLeaf(e, reader);
  if (e.kind === 'two-histories') return twoHistories(e, reader);
  if (e.kind === 'broken-replay') return brokenReplay(e, reader);
  const [small, big] = e.notes.map((n) => opened(n, reader)).sort((a, b) => (a.size < b.size ? -1 : a.size > b.size ? 1 : 0));
  if (e.kind === 'two-roots') {
    if (small.size !== big.size || same(small.root, big.root)) nothing('no-contradiction');
    return 'fork';
  }
  if (e.kind === 'other-prefix') {
    if (small.size === 0n || small.size === big.size || same(small.root, e.root)) nothing('no-contradiction');
    if (!consistency(small.size, e.root, big.size, big.root, e.hashes)) nothing('broken-proof');
    return 'fork';
  }
  if (small.size === big.size) nothing('no-contradiction');
  let bad = false, both = false;
  for (const k of reader.witnesses) {                        // each cosigner by its own lines
    let at;
    try { at = [small, big].map((n) => openNote(n, { logs: [], witnesses: [k] }, '')); } catch { bad = true; continue; }
    if (at.some((n) => n.badLine)) { bad = true; continue; }
    const [then, before] = at.map((n) => n.each.get(k));
    if (then === undefined || before === undefined) continue;
    both = true;
    if (then > before) return 'rollback';
  }
  nothing(bad ? 'bad-signature' : both ? 'no-contradiction' : 'unwitnessed');
}

// ---------------------------------------------------------------- two-histories
const link = (head, key, seq, d) => H('link', head, key, u64(seq), d);
function headsOf({ entries, note, parsed: p }, reader) {
  const n = opened(note, reader);
  if (n.size === 0n || p.from !== 0n || BigInt(entries.length) !== p.map.seq + 1n) nothing('incomplete');
  if (!inclusion(cat(Buffer.from([2]), p.map.root), n.size - 1n, n.size, p.commitment, n.root)) nothing('broken-proof');
  if (!presence(p.chain, mapValue(p.map.seq, p.map.head, p.map.index), p.map.siblings, p.map.root)) nothing('broken-proof');
  let head = H('genesis', text(p.log), p.root, p.chain);
  const heads = entryBytes(entries).map((bytes, i) => (head = link(head, p.chain, i, H('entry', bytes))));
  if (!same(head, p.map.head)) nothing('broken-proof');
  return heads;
}
function twoHistories({ proofs: [one, other] }, reader) {
  if (one.parsed.log !== other.parsed.log || !same(one.parsed.chain, other.parsed.chain)) nothing('no-contradiction');
  const a = headsOf(one, reader), b = headsOf(other, reader);
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (!same(a[i], b[i])) return 'fork';
  return nothing('no-contradiction');
}

// ---------------------------------------------------------------- broken-replay
function rootOf(size, peaks, leaves) {                       // RFC 6962: complete subtrees, merged while leaves come
  const stack = [...peaks];
  let n = size;
  for (const leaf of leaves) {
    let h = leafHash(leaf);
    for (let m = n; m & 1n; m >>= 1n) h = nodeHash(stack.pop(), h);
    stack.push(h);
    n += 1n;
  }
  let root = stack.pop();
  while (stack.length) root = nodeHash(stack.pop(), root);
  return root;
}
const bitAt = (key, i) => (key[i >> 3] >> (7 - (i & 7))) & 1;
const leafOf = ({ key, value }) => H('map-leaf', key, value);
function treeOf(items, depth) {                              // 6.3, from leaves alone
  if (items.length === 0) return ZERO32;
  if (items.length === 1) return leafOf(items[0]);
  return H('map-node', ...[0, 1].map((bit) => treeOf(items.filter((x) => bitAt(x.key, depth) === bit), depth + 1)));
}
/** The root after the chains at these places have got new values; a path that goes on stays one, as keys only come. */
function moved(places, depth) {
  if (places.every((p) => p.siblings.length === depth)) {
    const items = places.map((p) => ({ key: p.key, value: p.next }));
    const other = places.find((p) => p.other)?.other;
    if (other && !items.some((x) => same(x.key, other.key))) items.push(other);
    return treeOf(items.filter((x) => x.value), depth);
  }
  if (places.some((p) => p.siblings.length <= depth)) nothing('broken-proof');
  return H('map-node', ...[0, 1].map((bit) => {
    const here = places.filter((p) => bitAt(p.key, depth) === bit);
    return here.length ? moved(here, depth + 1) : places[0].siblings[places[0].siblings.length - 1 - depth];
  }));
}
const SIZES = { 1: 73, 2: 33, 3: 33, 4: 33, 5: 33 };         // 6.1
const hasForm = (leaf) => leaf.length > 0 && SIZES[leaf[0]] === leaf.length;
const isMap = (leaf) => hasForm(leaf) && leaf[0] === 2;
const isEntry = (leaf) => hasForm(leaf) && leaf[0] === 1;
const chainOf = (leaf) => leaf.subarray(1, 33).toString('hex');

function brokenReplay(e, reader) {
  const n = opened(e.note, reader);
  const end = e.size + BigInt(e.leaves.length);
  if (!e.leaves.length || end > n.size) bad('leaves and the signed size');
  if (e.peaks.length !== e.size.toString(2).replaceAll('0', '').length) bad('peaks');
  if (!consistency(end, rootOf(e.size, e.peaks, e.leaves), n.size, n.root, e.hashes)) nothing('broken-proof');
  // (2) the map to start from
  if (e.leaves.slice(1, -1).some(isMap)) bad('a commitment in between');
  const start = e.size === 0n ? ZERO32 : isMap(e.leaves[0]) ? e.leaves[0].subarray(1) : null;
  if (start === null && e.chains.length) bad('chains without a map');
  // (3) the places in it
  const touched = new Set(e.leaves.filter(isEntry).map(chainOf));
  const chains = new Map();
  for (const c of e.chains) {
    if (!touched.has(c.key.toString('hex'))) bad('a chain that no leaf touches');
    c.next = c.held && mapValue(c.held.seq, c.held.head, c.held.index);
    const holds = c.held ? presence(c.key, c.next, c.siblings, start) : absence(c.key, c, start);
    if (!holds) nothing('broken-proof');
    chains.set(c.key.toString('hex'), c);
  }
  // (4) the replay: the first leaf that breaks a rule is the last one
  const seen = new Set();
  for (const [i, leaf] of e.leaves.entries()) {
    const index = e.size + BigInt(i);
    const broken = breaks(leaf, index, n.size, i === 0 && e.size > 0n, start, chains, seen, e.chains);
    if (broken && i < e.leaves.length - 1) bad('leaves after the broken one');
    if (broken) return broken;
  }
  return nothing('no-contradiction');
}
function breaks(leaf, index, signedSize, isStart, start, chains, seen, places) {
  if (!hasForm(leaf) || (leaf[0] === 4 && index !== 0n)) return 'chain-broken';
  if (isMap(leaf)) {
    if (isStart || start === null || [...seen].some((name) => !chains.has(name))) return null;
    const root = places.length ? moved(places, 0) : start;
    return same(leaf.subarray(1), root) ? null : 'map-wrong';
  }
  if (index === signedSize - 1n) return 'chain-broken';
  if (!isEntry(leaf)) return null;
  const name = chainOf(leaf), c = chains.get(name), seq = leaf.readBigUInt64BE(33), x = leaf.subarray(41);
  seen.add(name);
  if (!c) return null;
  if (seq !== (c.held ? c.held.seq + 1n : 0n)) return 'chain-broken';
  const head = c.held ? link(c.held.head, c.key, seq, x) : x;
  c.held = { seq, head, index };
  c.next = mapValue(seq, head, index);
  return null;
}
