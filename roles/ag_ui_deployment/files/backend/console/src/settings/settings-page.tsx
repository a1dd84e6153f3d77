import { useState } from "preact/hooks";
import { answerOf, api } from "../api/client";
import type { Setting } from "../api/types";
import { usePages } from "../lib/hooks";
import { Card, Page, Table, TextField } from "../ui/parts";
import { Paged } from "../ui/paged";

const SOURCES: Record<Setting["source"], string> = { environment: "Environment", ".env": "File .env", default: "Default" };

export default function SettingsPage() {
  const settings = usePages(() => answerOf(api.GET("/admin/config")));
  const [search, setSearch] = useState("");
  const [changedOnly, setChangedOnly] = useState(false);
  const found = settings.items?.filter(
    ({ name, source }) => name.toLowerCase().includes(search.trim().toLowerCase()) && !(changedOnly && source === "default"),
  );
  return (
    <Page title="Settings">
      <Card title="Settings of this server">
        <p class="faint">
          The values of the instance that answered. They are changed where the server is deployed, and apply after its next
          start. Of a secret, only whether it is set is shown.
        </p>
        <form class="filter-fields" role="search" aria-label="Settings" onSubmit={(event) => event.preventDefault()}>
          <TextField label="Name" type="search" value={search} onInput={setSearch} />
          <label class="check">
            <input type="checkbox" checked={changedOnly} onChange={(event) => setChangedOnly(event.currentTarget.checked)} />
            Only those that are not the default
          </label>
        </form>
        <Paged
          pages={{ ...settings, items: found ?? null }}
          noun="setting"
          plural="settings"
          empty={<p>No setting matches.</p>}
        >
          {(items) => (
            <Table label="Settings" head={["Setting", "Value", "From"]}>
              {items.map((setting) => (
                <tr key={setting.name}>
                  <th scope="row" class="mono">
                    {setting.name}
                  </th>
                  <td>
                    <Value setting={setting} />
                  </td>
                  <td>{SOURCES[setting.source]}</td>
                </tr>
              ))}
            </Table>
          )}
        </Paged>
      </Card>
    </Page>
  );
}

function Value({ setting: { value, secret, is_set } }: { setting: Setting }) {
  if (secret) return <span class={`badge ${is_set ? "badge-completed" : ""}`}>{is_set ? "Set" : "Not set"}</span>;
  if (!is_set) return <span class="faint">Not set</span>;
  if (Array.isArray(value) && value.length === 0) return <span class="faint">None</span>;
  const text = Array.isArray(value) ? value.map(String).join(", ") : typeof value === "string" ? value : JSON.stringify(value);
  return <span class="mono">{text}</span>;
}
