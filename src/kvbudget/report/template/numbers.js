// Numbers as Python adds, reads and prints them.

// The sum of doubles, rounded once at the end (Shewchuk 1997), as math.fsum adds.
function fsum(terms) {
  const partials = [];
  for (const term of terms) {
    let sum = term;
    let used = 0;
    for (const partial of partials) {
      const [large, small] = Math.abs(sum) < Math.abs(partial) ? [partial, sum] : [sum, partial];
      sum = large + small;
      const rest = small - (sum - large);
      if (rest !== 0) partials[used++] = rest;
    }
    partials.length = used;
    partials.push(sum);
  }
  let at = partials.length - 1;
  if (at < 0) return 0;
  let high = partials[at];
  let low = 0;
  while (at > 0 && low === 0) {
    const before = high;
    at -= 1;
    high = before + partials[at];
    low = partials[at] - (high - before);
  }
  // half way between two doubles the next partial decides
  const tie = at > 0 && low !== 0 && Math.sign(low) === Math.sign(partials[at - 1]);
  if (tie && high + 2 * low - high === 2 * low) high += 2 * low;
  return high;
}

const BINARY_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

// A size with one decimal in the largest binary unit that fits: "1.5 KiB".
function formatBytes(bytes) {
  let size = bytes;
  let unit = 0;
  while (size >= 1023.95 && unit < BINARY_UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${bytes} B` : `${oneDecimal(size)} ${BINARY_UNITS[unit]}`;
}

// Ties go to the even digit, as they do in Python; only quarters can be ties.
function oneDecimal(size) {
  const quarters = size * 4;
  const tie = Number.isInteger(quarters) && quarters % 2 !== 0;
  if (!tie) return size.toFixed(1);
  const below = Math.floor(size * 10);
  return ((below % 2 === 0 ? below : below + 1) / 10).toFixed(1);
}

// Two sizes as text that differs whenever the sizes do.
function formatPair(one, other) {
  const texts = [formatBytes(one), formatBytes(other)];
  if (one !== other && texts[0] === texts[1]) {
    return [one, other].map((bytes) => `${grouped(bytes)} B`);
  }
  return texts;
}

function grouped(count) {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

function counted(count, noun) {
  return `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;
}

// A number with so many significant digits: Python's "%.4g".
function significant(value, digits = 4) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const [mantissa, power] = value.toExponential(digits - 1).split("e");
  const exponent = Number(power);
  const trim = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (exponent >= -4 && exponent < digits) return trim(value.toFixed(digits - 1 - exponent));
  const sign = exponent < 0 ? "-" : "+";
  return `${trim(mantissa)}e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

function percent(share, digits = 3) {
  return `${significant(100 * share, digits)}\u00a0%`;
}

// The shortest text that reads back as the same double, spelt as Python spells it.
function pythonFloat(value) {
  if (Number.isInteger(value) && Math.abs(value) < 1e16) {
    return Object.is(value, -0) ? "-0.0" : `${value}.0`;
  }
  const [mantissa, power] = value.toExponential().split("e");
  const exponent = Number(power);
  if (exponent >= 16 || exponent < -4) {
    const sign = exponent < 0 ? "-" : "+";
    return `${mantissa}e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  const digits = mantissa.replace("-", "").replace(".", "");
  const minus = value < 0 ? "-" : "";
  if (exponent < 0) return `${minus}0.${"0".repeat(-exponent - 1)}${digits}`;
  return `${minus}${digits.slice(0, exponent + 1)}.${digits.slice(exponent + 1)}`;
}

const UNIT_BYTES = {
  b: 1n,
  ...{ kib: 2n ** 10n, mib: 2n ** 20n, gib: 2n ** 30n, tib: 2n ** 40n },
  ...{ kb: 10n ** 3n, mb: 10n ** 6n, gb: 10n ** 9n, tb: 10n ** 12n },
};

// Bytes that "25%", "2GiB", "256 tokens" or "1000000" mean; a text that says why not, else.
function readBudget(text, fullBytes, tokenBytes) {
  const match = /^\s*(\d{1,20})(?:\.(\d{1,20}))?\s*(%|[a-z]*)\s*$/i.exec(text);
  const form = "Write a share such as 25%, a size such as 2GiB, or 256 tokens.";
  if (!match) return form;
  const [, whole, decimals = "", word] = match;
  const unit = word.toLowerCase();
  const amount = BigInt(whole + decimals);
  const scale = 10n ** BigInt(decimals.length);
  if (unit === "%") {
    if (amount > 100n * scale) return "A share is at most 100%.";
    return positive((amount * BigInt(fullBytes)) / (100n * scale));
  }
  if (decimals === "" && unit === "") return positive(amount);
  if (decimals === "" && /^tokens?$/.test(unit)) return positive(amount * BigInt(tokenBytes));
  if (unit in UNIT_BYTES) return positive((amount * UNIT_BYTES[unit]) / scale);
  return form;
}

function positive(bytes) {
  if (bytes < 1n) return "A budget is at least one byte.";
  return Number(bytes > 2n ** 53n ? 2n ** 53n : bytes);
}
