import { render } from "preact";
import { App } from "./panels/App";
import "./style.css";

render(<App />, document.getElementById("page")!);
