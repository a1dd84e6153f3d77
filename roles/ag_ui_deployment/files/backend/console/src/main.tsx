import "./styles/base.css";
import { render } from "preact";
import { App } from "./app";
import { startSession } from "./session";

void startSession();
render(<App />, document.getElementById("app")!);
