// A control plane made of go-control-plane's snapshot cache and server drives a proxy over ADS.
//
// Snapshots come and go under constant traffic: weights change, clusters appear and disappear. Every snapshot must be
// accepted and followed within a second, and no request may fail.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const node = "interop"

func main() {
	proxy := flag.String("proxy", "", "the proxy to drive")
	flag.Parse()
	fmt.Println("== go-control-plane")
	checks := &checks{}
	for _, variant := range []string{"GRPC", "DELTA_GRPC"} {
		if err := drive(checks, *proxy, variant); err != nil {
			checks.check(false, fmt.Sprintf("%s: %v", variant, err))
		}
	}
	fmt.Printf("go-control-plane: %d passed, %d failed\n", checks.passed, checks.failed)
	if checks.failed > 0 || checks.passed == 0 {
		os.Exit(1)
	}
}

type checks struct{ passed, failed int }

func (c *checks) check(right bool, text string) {
	if right {
		c.passed++
		fmt.Println("   ok  ", text)
	} else {
		c.failed++
		fmt.Println("   FAIL", text)
	}
}

// One step of the way: how the requests are split between numbered services. Those without a weight have no cluster.
type step map[int]uint32

var steps = []step{{0: 1}, {0: 1, 1: 1}, {1: 1}, {1: 0, 2: 1}, {0: 1, 1: 1, 2: 1, 3: 1}, {3: 1}, {0: 1}}

func drive(checks *checks, proxy, variant string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var services []uint32
	for n := range 4 {
		port, err := serve(fmt.Sprint(n))
		if err != nil {
			return err
		}
		services = append(services, port)
	}

	snapshots := cache.NewSnapshotCache(true, cache.IDHash{}, nil)
	answers := &answers{}
	management, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	grpcServer := grpc.NewServer()
	srv := server.NewServer(ctx, snapshots, answers.callbacks(), sotw.WithOrderedADS())
	discovery.RegisterAggregatedDiscoveryServiceServer(grpcServer, srv)
	go grpcServer.Serve(management)
	defer grpcServer.Stop()

	port, err := freePort()
	if err != nil {
		return err
	}
	if err := set(ctx, snapshots, "0", port, services, steps[0], steps[0]); err != nil {
		return err
	}
	stop, err := start(proxy, variant, uint32(management.Addr().(*net.TCPAddr).Port))
	if err != nil {
		return err
	}
	defer stop()
	if err := awaitServing(port); err != nil {
		return err
	}
	traffic := startTraffic(port)
	traffic.await(time.Time{}, 20)

	for n, step := range steps[1:] {
		// Make before break: a route may reach a proxy before the clusters of the same snapshot are warm, and clusters may
		// go before the route does. No proxy can serve what is not there.
		both := maps.Clone(steps[n])
		maps.Copy(both, step)
		if err := set(ctx, snapshots, fmt.Sprintf("%d-prepare", n+1), port, services, steps[n], both); err != nil {
			return err
		}
		time.Sleep(300 * time.Millisecond)
		published := time.Now()
		if err := set(ctx, snapshots, fmt.Sprintf("%d-make", n+1), port, services, step, both); err != nil {
			return err
		}
		time.Sleep(time.Second)
		if err := set(ctx, snapshots, fmt.Sprintf("%d-break", n+1), port, services, step, step); err != nil {
			return err
		}
		settled := time.Now()
		// A number of requests, not a time: how many fit into one is the machine's affair. A service with a small weight
		// has to be among them.
		traffic.await(settled, 200)
		seen, late := traffic.since(published, settled, step)
		right := late <= time.Second
		for service := range services {
			// With a weight it is asked, without one it is not.
			right = right && (seen[fmt.Sprint(service)] > 0) == (step[service] > 0)
		}
		text := fmt.Sprintf("%s: snapshot %d followed, %v; last request of the old one after %d ms", variant, n+1, seen, late.Milliseconds())
		checks.check(right, text)
	}
	total, failures := traffic.end()
	text := fmt.Sprintf("%s: %d requests, %d failed %v", variant, total, len(failures), failures[:min(1, len(failures))])
	checks.check(total > 200 && len(failures) == 0, text)
	accepted, refused := answers.accepted.Load(), answers.refused()
	checks.check(accepted > 0 && len(refused) == 0, fmt.Sprintf("%s: %d answers, refused %v", variant, accepted, refused))
	return nil
}

// What the proxy answers.
type answers struct {
	accepted atomic.Int64
	mu       sync.Mutex
	nacks    []string
}

func (a *answers) hear(nonce string, detail interface{ GetMessage() string }, isNack bool) {
	switch {
	case isNack:
		a.mu.Lock()
		a.nacks = append(a.nacks, detail.GetMessage())
		a.mu.Unlock()
	case nonce != "":
		a.accepted.Add(1)
	}
}

func (a *answers) refused() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.nacks
}

func (a *answers) callbacks() server.CallbackFuncs {
	return server.CallbackFuncs{
		StreamRequestFunc: func(_ int64, request *discovery.DiscoveryRequest) error {
			a.hear(request.GetResponseNonce(), request.GetErrorDetail(), request.GetErrorDetail() != nil)
			return nil
		},
		StreamDeltaRequestFunc: func(_ int64, request *discovery.DeltaDiscoveryRequest) error {
			a.hear(request.GetResponseNonce(), request.GetErrorDetail(), request.GetErrorDetail() != nil)
			return nil
		},
	}
}

func set(ctx context.Context, snapshots cache.SnapshotCache, version string, port uint32, services []uint32, step, present step) error {
	var clusters, endpoints []types.Resource
	weighted := &route.WeightedCluster{}
	for n, service := range services {
		if _, there := present[n]; !there {
			continue
		}
		name := fmt.Sprintf("service-%d", n)
		clusters = append(clusters, &cluster.Cluster{
			Name:                 name,
			ConnectTimeout:       durationpb.New(time.Second),
			ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
			EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: ads()},
		})
		endpoints = append(endpoints, &endpoint.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpoint.LocalityLbEndpoints{{LbEndpoints: []*endpoint.LbEndpoint{{
				HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: address(service)}},
			}}}},
		})
		weight, there := step[n]
		if !there {
			continue
		}
		weighted.Clusters = append(weighted.Clusters, &route.WeightedCluster_ClusterWeight{Name: name, Weight: wrapperspb.UInt32(weight)})
	}
	routes := &route.RouteConfiguration{
		Name: "routes",
		VirtualHosts: []*route.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*route.Route{{
			Match: &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/"}},
			Action: &route.Route_Route{Route: &route.RouteAction{
				ClusterSpecifier: &route.RouteAction_WeightedClusters{WeightedClusters: weighted},
			}},
		}}}},
	}
	manager := &hcm.HttpConnectionManager{
		StatPrefix:     "ingress",
		RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{RouteConfigName: "routes", ConfigSource: ads()}},
		HttpFilters: []*hcm.HttpFilter{{
			Name:       "envoy.filters.http.router",
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: pack(&router.Router{})},
		}},
	}
	ingress := &listener.Listener{
		Name:    "ingress",
		Address: address(port),
		FilterChains: []*listener.FilterChain{{Filters: []*listener.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listener.Filter_TypedConfig{TypedConfig: pack(manager)},
		}}}},
	}
	snapshot, err := cache.NewSnapshot(version, map[resource.Type][]types.Resource{
		resource.ClusterType:  clusters,
		resource.EndpointType: endpoints,
		resource.ListenerType: {ingress},
		resource.RouteType:    {routes},
	})
	if err != nil {
		return err
	}
	if err := snapshot.Consistent(); err != nil {
		return err
	}
	return snapshots.SetSnapshot(ctx, node, snapshot)
}

func ads() *core.ConfigSource {
	return &core.ConfigSource{
		ResourceApiVersion:    core.ApiVersion_V3,
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
	}
}

func address(port uint32) *core.Address {
	socket := &core.SocketAddress{Address: "127.0.0.1", PortSpecifier: &core.SocketAddress_PortValue{PortValue: port}}
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: socket}}
}

func pack(message proto.Message) *anypb.Any {
	packed, err := anypb.New(message)
	if err != nil {
		panic(err)
	}
	return packed
}

func serve(name string) (uint32, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })
	go http.Serve(l, answer)
	return uint32(l.Addr().(*net.TCPAddr).Port), nil
}

func freePort() (uint32, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return uint32(l.Addr().(*net.TCPAddr).Port), nil
}

const bootstrap = `
node: { id: %s, cluster: interop }
admin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }
dynamic_resources:
  ads_config:
    api_type: %s
    transport_api_version: V3
    grpc_services:
    - envoy_grpc: { cluster_name: control_plane }
  lds_config: { ads: {}, resource_api_version: V3 }
  cds_config: { ads: {}, resource_api_version: V3 }
static_resources:
  clusters:
  - name: control_plane
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
    load_assignment:
      cluster_name: control_plane
      endpoints:
      - lb_endpoints:
        - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: %d } } }
`

// Starts the proxy; the returned function ends it.
func start(proxy, variant string, management uint32) (func(), error) {
	directory, err := os.MkdirTemp("", "legate-interop-")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(directory, "bootstrap.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, bootstrap, node, variant, management), 0o600); err != nil {
		return nil, err
	}
	command := exec.Command(proxy, "-c", file, "--concurrency", "2", "--disable-hot-restart", "-l", "warning")
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		return nil, err
	}
	return func() {
		command.Process.Kill()
		command.Wait()
		os.RemoveAll(directory)
	}, nil
}

func awaitServing(port uint32) error {
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
	return fmt.Errorf("the proxy did not serve within 15 s")
}

type answered struct {
	sent time.Time
	by   string
}

// Clients that ask again and again.
type traffic struct {
	mu       sync.Mutex
	answers  []answered
	failures []string
	stop     chan struct{}
	clients  sync.WaitGroup
}

func startTraffic(port uint32) *traffic {
	t := &traffic{stop: make(chan struct{})}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	for range 6 {
		t.clients.Go(func() {
			for {
				select {
				case <-t.stop:
					return
				case <-time.After(4 * time.Millisecond):
					t.ask(client, fmt.Sprintf("http://127.0.0.1:%d/", port))
				}
			}
		})
	}
	return t
}

func (t *traffic) ask(client *http.Client, url string) {
	sent := time.Now()
	response, err := client.Get(url)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(response.Body)
		response.Body.Close()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil:
		t.failures = append(t.failures, err.Error())
	case response.StatusCode != http.StatusOK:
		t.failures = append(t.failures, fmt.Sprint(response.Status, " ", strings.TrimSpace(string(body))))
	default:
		t.answers = append(t.answers, answered{sent, string(body)})
	}
}

// Waits until so many requests sent since then were answered, or for half a minute.
func (t *traffic) await(since time.Time, count int) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		t.mu.Lock()
		answered := 0
		for _, answer := range t.answers {
			if !answer.sent.Before(since) {
				answered++
			}
		}
		t.mu.Unlock()
		if answered >= count {
			return
		}
	}
}

// Who answered since `settled`, and how long after `published` a service without a weight was last asked.
func (t *traffic) since(published, settled time.Time, step step) (map[string]int, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen, late := map[string]int{}, time.Duration(0)
	for _, answer := range t.answers {
		if !answer.sent.Before(settled) {
			seen[answer.by]++
		}
		var service int
		fmt.Sscan(answer.by, &service)
		if step[service] == 0 {
			late = max(late, answer.sent.Sub(published))
		}
	}
	return seen, late
}

func (t *traffic) end() (int, []string) {
	close(t.stop)
	t.clients.Wait()
	return len(t.answers), t.failures
}
