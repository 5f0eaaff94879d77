// A plan as the JSON text that Plan.load reads, checksum and all.

// Fields of the file that the budget does not change come from Python, spelt as it spells them.
function planText(report, solution, context, batch) {
  const capacity = onGrid(report.model, solution.tokens);
  const certificate = {
    bound: pythonFloat(solution.bound),
    constraints: report.fixed.constraints,
    gap: pythonFloat(solution.gap),
    loss: pythonFloat(solution.loss),
    risk: report.fixed.risk,
    solver: asciiJson(solution.solver),
    status: asciiJson(solution.status),
  };
  const fields = {
    ...report.fixed.fields,
    batch_size: String(batch),
    budget_bytes: String(solution.budgetBytes),
    capacity_tokens: `[${capacity.map((row) => `[${row.join(",")}]`).join(",")}]`,
    certificate: objectText(certificate),
    context_tokens: String(context),
  };
  const digest = sha256(`${objectText(fields)}\n`);
  return `${objectText({ ...fields, sha256: `"${digest}"` })}\n`;
}

// An object of texts that are JSON already, its names sorted.
function objectText(fields) {
  const names = Object.keys(fields).sort();
  return `{${names.map((name) => `"${name}":${fields[name]}`).join(",")}}`;
}

// A text as Python's json spells it.
function asciiJson(text) {
  const code = (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, code);
}

// Rows of layers, 0 where a layer has fewer KV heads than another.
function onGrid(model, values) {
  const widest = Math.max(...model.kv_heads);
  let next = 0;
  return model.kv_heads.map((heads) =>
    Array.from({ length: widest }, (_, head) => (head < heads ? values[next++] : 0)),
  );
}

const PRIMES = (() => {
  const found = [];
  for (let number = 2; found.length < 64; number += 1) {
    if (found.every((prime) => number % prime !== 0)) found.push(number);
  }
  return found;
})();
const fractionBits = (root) => ((root % 1) * 2 ** 32) | 0;
const ROUND_CONSTANTS = PRIMES.map((prime) => fractionBits(Math.cbrt(prime)));
const START = PRIMES.slice(0, 8).map((prime) => fractionBits(Math.sqrt(prime)));

// SHA-256 of ASCII text in hexadecimal (FIPS 180-4); pages of files have no other everywhere.
function sha256(text) {
  const length = text.length;
  const padded = new Uint8Array(((length + 8) >> 6) * 64 + 64);
  for (let at = 0; at < length; at += 1) padded[at] = text.charCodeAt(at);
  padded[length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(length / 2 ** 29));
  view.setUint32(padded.length - 4, (length * 8) >>> 0);
  const state = Int32Array.from(START);
  const words = new Int32Array(64);
  for (let block = 0; block < padded.length; block += 64) {
    for (let at = 0; at < 16; at += 1) words[at] = view.getInt32(block + 4 * at);
    mixBlock(state, words);
  }
  return Array.from(state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

const turn = (word, by) => (word >>> by) | (word << (32 - by));

function mixBlock(state, words) {
  for (let at = 16; at < 64; at += 1) {
    const early = words[at - 15];
    const late = words[at - 2];
    const low = turn(early, 7) ^ turn(early, 18) ^ (early >>> 3);
    const high = turn(late, 17) ^ turn(late, 19) ^ (late >>> 10);
    words[at] = (words[at - 16] + low + words[at - 7] + high) | 0;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let at = 0; at < 64; at += 1) {
    const choice = (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g));
    const first = (h + choice + ROUND_CONSTANTS[at] + words[at]) | 0;
    const second = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, at) => {
    state[at] = (state[at] + word) | 0;
  });
}
