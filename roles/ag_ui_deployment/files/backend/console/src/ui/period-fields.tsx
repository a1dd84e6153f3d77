import { useState } from "preact/hooks";
import { type Period, PERIODS } from "../lib/query";
import { SelectField, TextField } from "./parts";

const CUSTOM = "custom";

interface Props extends Period {
  label: string;
  onChange: (period: Period) => void;
}

/** Asks for one of the usual periods, or for two times. */
export function PeriodFields({ label, since, until, onChange }: Props) {
  const custom = until !== "" || (since !== "" && !PERIODS.some(({ value }) => value === since));
  const [asksForTimes, setAsksForTimes] = useState(custom);
  return (
    <>
      <SelectField
        label={label}
        value={custom || asksForTimes ? CUSTOM : since}
        options={[{ value: "", label: "Any time" }, ...PERIODS, { value: CUSTOM, label: "Between…" }]}
        onChange={(value) => {
          setAsksForTimes(value === CUSTOM);
          if (value !== CUSTOM) onChange({ since: value, until: "" });
        }}
      />
      {(custom || asksForTimes) && (
        <>
          <TextField label="From" type="datetime-local" value={localTime(since)} onInput={(text) => onChange({ since: isoTime(text), until })} />
          <TextField label="Before" type="datetime-local" value={localTime(until)} onInput={(text) => onChange({ since, until: isoTime(text) })} />
        </>
      )}
    </>
  );
}

function localTime(iso: string): string {
  const time = Date.parse(iso);
  if (Number.isNaN(time)) return "";
  return new Date(time - new Date(time).getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function isoTime(local: string): string {
  const time = Date.parse(local);
  return Number.isNaN(time) ? "" : new Date(time).toISOString();
}
