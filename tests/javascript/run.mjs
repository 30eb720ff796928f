// node run.mjs DIR: every vector in DIR and DIR/evidence, one line for each that is judged otherwise here, then the counts.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { judgeCase } from './evidence.mjs';
import { verifyCase } from './verifier.mjs';

const sorted = (words) => JSON.stringify([...new Set(words)].sort());
const [directory] = process.argv.slice(2);
let differ = 0;

function compare(folder, said, wanted) {
  const counts = [0, 0];
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.json')).sort()) {
    const vector = JSON.parse(readFileSync(join(folder, name), 'utf8'));
    const [got, want] = [said(vector), wanted(vector)];
    counts[Number(got !== want)] += 1;
    if (got !== want) console.log(`${name}: got ${got}, want ${want}`);
  }
  differ += counts[1];
  return `${counts[0]} agree, ${counts[1]} differ`;
}

const words = ({ verdict, reasons }) => (verdict === 'MALFORMED' ? verdict : `${verdict} ${sorted(reasons)}`);
const vectors = compare(directory, (v) => words(verifyCase(v)), (v) => words({ verdict: v.expect, reasons: v.reasons }));
const evidence = compare(join(directory, 'evidence'), judgeCase, (v) => v.expect);
console.log(`vectors: ${vectors}`);
console.log(`evidence: ${evidence}`);
process.exit(differ ? 1 : 0);
