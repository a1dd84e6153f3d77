import { Component, type ComponentType, createElement, type FunctionComponent } from "preact";

/** A component that renders again only if one of its properties is another value. */
export function memo<P extends object>(render: FunctionComponent<P>): ComponentType<P> {
  return class extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      const before = this.props as Record<string, unknown>;
      return Object.entries(next).some(([name, value]) => !Object.is(value, before[name]));
    }

    override render() {
      return createElement(render, this.props as P);
    }
  };
}
