import { make } from "./data.js";
export class Planes {
  constructor() {
    this.node = make("section");
  }
}
