/** Texts for times, durations and numbers. */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const numbers = new Intl.NumberFormat("en");
const dateTimes = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** `1.2 s`, `48 s`, `3 min 05 s`, `2 h 07 min`, `3 d 4 h`. */
export function formatDuration(milliseconds: number): string {
  const ms = Math.max(0, milliseconds);
  if (ms < 10 * SECOND) return `${(Math.floor(ms / 100) / 10).toFixed(1)} s`;
  if (ms < MINUTE) return `${Math.floor(ms / SECOND)} s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min ${padded((ms % MINUTE) / SECOND)} s`;
  if (ms < DAY) return `${Math.floor(ms / HOUR)} h ${padded((ms % HOUR) / MINUTE)} min`;
  return `${Math.floor(ms / DAY)} d ${Math.floor((ms % DAY) / HOUR)} h`;
}

function padded(value: number): string {
  return String(Math.floor(value)).padStart(2, "0");
}

/** `just now`, `12 s ago`, `5 min ago`, `in 3 h`, or the date if it is more than a week away. */
export function formatAge(time: number, now: number): string {
  const distance = Math.abs(now - time);
  if (distance < 2 * SECOND) return "just now";
  if (distance > 7 * DAY) return formatDateTime(time);
  const text =
    distance < MINUTE
      ? `${Math.floor(distance / SECOND)} s`
      : distance < HOUR
        ? `${Math.floor(distance / MINUTE)} min`
        : distance < DAY
          ? `${Math.floor(distance / HOUR)} h`
          : `${Math.floor(distance / DAY)} d`;
  return time <= now ? `${text} ago` : `in ${text}`;
}

export function formatDateTime(time: number): string {
  return isDate(time) ? dateTimes.format(time) : "unknown time";
}

export function formatClock(time: number): string {
  return isDate(time) ? clock.format(time) : "unknown time";
}

/** The value of the attribute `datetime`. */
export function isoTime(time: number): string | undefined {
  return isDate(time) ? new Date(time).toISOString() : undefined;
}

/** Producers can send any number as a time. */
function isDate(time: number): boolean {
  return Math.abs(time) <= 8.64e15;
}

export function formatNumber(value: number): string {
  return numbers.format(value);
}

/** `0`, `0.4`, `12`, `1,234`: with a decimal below ten. */
export function formatRate(perSecond: number): string {
  return perSecond > 0 && perSecond < 10 ? Math.max(0.1, perSecond).toFixed(1) : formatNumber(Math.round(perSecond));
}

export function formatPercent(value: number): string {
  return `${Math.floor(value)} %`;
}

/** `512 B`, `1.5 KiB`, `20 MiB`, `1 GiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  const units = ["B", "KiB", "MiB", "GiB"];
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${Number(value.toFixed(value < 10 ? 1 : 0))} ${units[unit]}`;
}

/** `crawl_web` and `entities_extracted` as words. */
export function asWords(name: string): string {
  const words = name.replace(/[_-]+/g, " ").trim();
  return words === "" ? name : words[0]!.toUpperCase() + words.slice(1);
}

/** Milliseconds since 1970 of an ISO time; null if it is none. */
export function parseTime(text: string | null | undefined): number | null {
  const time = text ? Date.parse(text) : Number.NaN;
  return Number.isNaN(time) ? null : time;
}
