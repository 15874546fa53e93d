/** Certificate and key of port 10250, whoever issues them and however often they change. */
export interface TlsSource {
  /** PEM; the certificate may be followed by those of its issuers. Always a pair that fits. */
  current(): { readonly cert: string; readonly key: string };
  /**
   * Calls `listener` each time {@link current} has changed; it must not throw. New connections are to get the new pair,
   * open ones stay as they are. Returns the function that ends the subscription.
   */
  onChange(listener: () => void): () => void;
}
