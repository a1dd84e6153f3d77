import "./style.css";

// Set if the backend is at another origin. Browsers send it no cookies, so a ticket opens the stream.
const backend = import.meta.env.VITE_AG_UI_URL ?? "";

async function post(path, body, token) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(backend + path, { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

async function logIn(account) {
  if (!backend) {
    await post("/auth/login", { ...account, cookies: true });
    return "/events";
  }
  const { access_token } = await post("/auth/login", account);
  const { ticket } = await post("/auth/ticket", {}, access_token);
  return `${backend}/events?ticket=${ticket}`;
}

function follow(address) {
  const source = new EventSource(address);
  for (const type of ["RUN_STARTED", "ACTIVITY_SNAPSHOT", "ACTIVITY_DELTA", "RUN_FINISHED"]) {
    source.addEventListener(type, () => {
      const item = document.createElement("li");
      item.textContent = type;
      document.querySelector("ol").append(item);
    });
  }
  source.addEventListener("open", () => (document.querySelector("output").value = "connected"));
}

document.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const account = Object.fromEntries(new FormData(event.target));
  logIn(account)
    .then(follow)
    .catch((error) => (document.querySelector("output").value = error.message));
});
