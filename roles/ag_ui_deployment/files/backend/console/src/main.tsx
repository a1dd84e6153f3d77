import "./styles/base.css";
import { render } from "preact";
import { App, preload } from "./app";
import { router } from "./lib/router";
import { startSession } from "./session";

preload(router().value.route.name);
void startSession();
render(<App />, document.getElementById("app")!);
