/** PEM text that stands in the kubeconfig itself, or a file that is read again when it changes. */
export type PemSource =
  | { readonly kind: "data"; readonly pem: string }
  | { readonly kind: "file"; readonly path: string };

/** A credential plug-in (client.authentication.k8s.io). */
export interface ExecPlugin {
  readonly apiVersion: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly provideClusterInfo: boolean;
  /** What to tell the user when the command is missing. */
  readonly installHint: string;
}

/** How the user proves who it is. Certificates may come together with a token. */
export interface KubeconfigUser {
  readonly name: string;
  readonly clientCertificate?: PemSource;
  readonly clientKey?: PemSource;
  readonly token?: string;
  /** Wins over `token`; read again each minute. */
  readonly tokenFile?: string;
  readonly exec?: ExecPlugin;
}

export interface KubeconfigCluster {
  readonly name: string;
  /** URL without a trailing slash; may carry a path prefix. */
  readonly server: string;
  /** Absent: the system's roots. */
  readonly ca?: PemSource;
  /** Name to check the server's certificate against instead of the URL's host. */
  readonly tlsServerName?: string;
  readonly insecureSkipTLSVerify: boolean;
}

/** The current context of a kubeconfig file, resolved and checked. File paths in it are absolute. */
export interface Kubeconfig {
  /** The file it was read from, for messages. */
  readonly path: string;
  readonly context: string;
  readonly namespace: string;
  readonly cluster: KubeconfigCluster;
  readonly user: KubeconfigUser;
}
