// node run.mjs DIR: every vector in DIR, one line for each that this verifier judges otherwise, then the counts.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { verifyCase } from './verifier.mjs';

const sorted = (words) => JSON.stringify([...new Set(words)].sort());
const directory = process.argv[2];
let agree = 0, differ = 0;
for (const name of readdirSync(directory).filter((file) => file.endsWith('.json')).sort()) {
  const vector = JSON.parse(readFileSync(join(directory, name), 'utf8'));
  const { verdict, reasons } = verifyCase(vector);
  if (verdict === vector.expect && (verdict === 'MALFORMED' || sorted(reasons) === sorted(vector.reasons))) {
    agree += 1;
  } else {
    differ += 1;
    console.log(`${name}: got ${verdict} ${sorted(reasons)}, want ${vector.expect} ${sorted(vector.reasons)}`);
  }
}
console.log(`${agree} agree, ${differ} differ`);
process.exit(differ ? 1 : 0);
